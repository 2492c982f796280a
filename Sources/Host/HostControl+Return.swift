import Driver
import Glibc
import PCI

/// A device that another process plays may go and come back. The host and its instance stay: the supervisor connects
/// again, and the driver is made anew on the same memory.
extension HostControl where D: ~Copyable, Path: ~Copyable {
  /// With the queue threads at rest: stops the driver, takes back all that the device held, and waits for a new socket.
  /// - Returns: false when the host should end.
  /// - Throws: where what comes back is another device.
  mutating func awaitReturn(of device: DriverSetup, after error: DriverError) throws(HostError)
    -> Bool
  {
    driver.stop()
    run.signs.pulse(0).set(.sleeping)
    supervisor.say("gone \(error)")
    while true {
      var isAllBack = true
      for index in 0..<paths.count where !paths[index].takeBackFromDevice() { isAllBack = false }
      switch supervisor.await(milliseconds: 100) {
      case .nothing: continue
      case .instance(let message, let descriptors): take(message, descriptors)
      case .stop: return false
      case .device(let socket):
        close(events.device)
        events.device = socket
        // An instance that does not take its completions must do so first: they lie where the new pair's would.
        while !isAllBack {
          isAllBack = true
          for index in 0..<paths.count where !paths[index].takeBackFromDevice() {
            isAllBack = false
          }
          if isAllBack { break }
          switch supervisor.await(milliseconds: 10) {
          case .nothing: continue
          case .stop: return false
          case .device(let another): close(another)
          case .instance(let message, let descriptors): take(message, descriptors)
          }
        }
        do throws(DriverError) {
          try goOn(with: device, over: socket)
          isFilterSet = false
          reconnects += 1
          statistics.publish(reconnects: reconnects)
          supervisor.say("returned")
          return true
        } catch {
          if case .unsupported = error { throw .driver(error) }
          driver.stop()
          supervisor.say("gone \(error)")
        }
      }
    }
  }

  private mutating func goOn(
    with device: DriverSetup, over socket: Int32
  ) throws(DriverError) {
    try DriverError.passing { () throws(PCIError) in
      try device.returning?.replaceSocket(socket)
    }
    var new = try device.make(D.self)
    guard new.interface.isSame(for: announced) else {
      new.stop()
      throw .unsupported(
        "\(device.function.name) came back as another device (\(describe(new.interface))), which the stack instance does not know: start the run anew"
      )
    }
    for index in 0..<paths.count { paths[index].goOn(with: new.takeQueuePair(index)) }
    driver = new
    try driver.start()
  }
}

extension NetworkInterface {
  /// Whether an instance that was told of `other` can use this one.
  fileprivate func isSame(for other: NetworkInterface) -> Bool {
    macAddress == other.macAddress && mtu == other.mtu && queuePairs == other.queuePairs
      && offloads == other.offloads
  }
}

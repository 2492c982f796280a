import CLinux
import E1000eDevice
import EduDevice
import EmulatedPCI
import Glibc
import VFIOUserServer
import VirtioNetDevice

/// A model that is served from a thread of its own, on a socket with a name.
final class ServedModel: @unchecked Sendable {
  let path = "/tmp/martlet-model-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"
  let server: VFIOUserServer
  private let stop = eventfd(0, Int32(EFD_CLOEXEC))
  private let listening: Int32
  private let wire: Int32
  private var thread = pthread_t()

  init(_ model: EmulatedFunction, wire: Int32 = -1) {
    listening = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    _ = linux_bind_unix(listening, path)
    listen(listening, 4)
    server = VFIOUserServer(model: model, listening: listening)
    self.wire = wire
    let box = Unmanaged.passRetained(self)
    pthread_create(
      &thread, nil,
      { argument in
        let served = Unmanaged<ServedModel>.fromOpaque(argument!).takeRetainedValue()
        served.run()
        return nil
      }, box.toOpaque())
  }

  private func run() {
    if let network = server.model as? VirtioNetDevice {
      _ = server.run(network, wire: wire, stop: stop)
    } else if let network = server.model as? E1000eDevice {
      _ = server.run(network, wire: wire, stop: stop)
    } else if let edu = server.model as? EduDevice {
      _ = server.run(edu, wire: wire, stop: stop)
    } else if let plain = server.model as? RegisterModel {
      _ = server.run(plain, wire: wire, stop: stop)
    }
  }

  /// Ends the thread; the server and its model can be looked at afterwards.
  func end() {
    var one: UInt64 = 1
    _ = write(stop, &one, 8)
    pthread_join(thread, nil)
    server.end()
    close(listening)
    close(stop)
    unlink(path)
  }
}

/// A model whose only register does DMA: it reads 8 bytes at the address that is written to it, and writes their
/// complement behind them.
final class RegisterModel: EmulatedFunction, PollingModel {
  private var wanted: UInt64?
  private(set) var failures = 0

  init() {
    super.init(
      configuration: ConfigurationSpace(
        vendor: 0x1234, device: 0x5678, classCode: 0xff0000, revision: 0, subsystem: 1),
      bars: [0: 4096], vectors: 2, interruptBAR: 1)
  }

  override func readRegister(bar: Int, offset: UInt64, byteCount: Int) -> UInt64 {
    wanted == nil ? UInt64(failures) : .max
  }
  override func writeRegister(bar: Int, offset: UInt64, byteCount: Int, value: UInt64) {
    wanted = value << 12
  }
  override func step() -> Bool {
    guard let address = wanted else { return false }
    wanted = nil
    var bytes = [UInt8](repeating: 0, count: 8)
    let read = bytes.withUnsafeMutableBytes { iommu.read(address, into: $0) }
    for index in bytes.indices { bytes[index] = ~bytes[index] }
    let written = bytes.withUnsafeBytes { iommu.write(address + 8, from: $0) }
    if !read || !written { failures += 1 }
    interrupts.trigger(1)
    return true
  }
  func prepareToSleep() -> Bool { wanted == nil }
  func wake() {}
}

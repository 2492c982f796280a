import CLinux
import Channel
import Glibc

/// A network namespace with one TAP interface in it, held by a process of ours and by nothing else: when that process
/// ends, however it ends, the namespace and the interface are gone. Without root it lies in a user namespace as well.
public final class NetworkNamespace {
  public let interface: String
  /// The TAP's descriptor, with a virtio-net header of 12 bytes before each frame.
  public let tap: Int32
  private var holder: ChildProcess
  private let control: ControlSocket
  private let isRoot: Bool

  /// - Parameter addresses: with prefix length, such as "10.0.0.1/24".
  public static func make(
    interface: String, addresses: [String]
  ) throws(SupervisorError) -> NetworkNamespace {
    var control = try ControlSocket()
    let isRoot = geteuid() == 0
    let holder = try ChildProcess(
      name: "namespace holder", program: Programs.martlet,
      arguments: ["hold-namespace", "--interface", interface],
      descriptors: [-1, 1, 2, control.peer], isolation: isRoot ? [.network] : [.user, .network])
    control.closePeer()
    let tap = try control.receiveDescriptor(from: "namespace holder", milliseconds: 5000)
    let namespace = NetworkNamespace(
      interface: interface, tap: tap, holder: holder, control: control, isRoot: isRoot)
    for address in addresses {
      try namespace.configure(["addr", "add", address, "dev", interface])
    }
    try namespace.configure(["link", "set", "lo", "up"])
    try namespace.configure(["link", "set", interface, "up"])
    return namespace
  }

  private init(
    interface: String, tap: Int32, holder: consuming ChildProcess,
    control: consuming ControlSocket, isRoot: Bool
  ) {
    self.interface = interface
    self.tap = tap
    self.holder = holder
    self.control = control
    self.isRoot = isRoot
  }

  deinit { close(tap) }

  /// The words that come before a command to run it in the namespace.
  public var prefix: [String] {
    ["nsenter", "-t", "\(holder.identifier)", "-n"]
      + (isRoot ? [] : ["-U", "--preserve-credentials"])
  }

  /// Arguments of nsenter that run a command in the namespace.
  public func entering(_ command: [String]) -> [String] { Array(prefix.dropFirst()) + command }

  /// Becomes readable when the process that holds the namespace has ended, and the namespace with it.
  public var descriptor: Int32 { holder.descriptor }
  func end() -> ProcessEnd { holder.end(withinMilliseconds: 0) }

  /// Gives the interface a MAC address.
  func setAddress(_ address: String) throws(SupervisorError) {
    try configure(["link", "set", interface, "address", address])
  }

  /// Frames that the kernel has received from the wire and sent to it.
  public var frames: (received: UInt64, sent: UInt64)? {
    guard let file = fopen("/proc/\(holder.identifier)/net/dev", "re") else { return nil }
    defer { fclose(file) }
    var text = [UInt8](repeating: 0, count: 65536)
    let count = fread(&text, 1, text.count, file)
    for line in String(decoding: text[..<count], as: UTF8.self).split(separator: "\n") {
      let words = line.split(whereSeparator: { $0 == " " || $0 == ":" })
      if words.count > 10, words[0] == interface, let received = UInt64(words[2]),
        let sent = UInt64(words[10])
      {
        return (received, sent)
      }
    }
    return nil
  }

  private func configure(_ arguments: [String]) throws(SupervisorError) {
    let nsenter = try Tool("nsenter", package: "util-linux")
    let ip = try Tool("ip", package: "iproute2")
    let (end, output) = try nsenter.run(entering([ip.path] + arguments))
    guard end == .exited(0) else {
      throw .input("ip \(arguments.joined(separator: " ")): \(output)")
    }
  }

  /// What the holder does: opens the TAP in its namespace, hands it over, and waits for its supervisor to go.
  /// - Parameter control: the process's end of the control socket.
  /// - Returns: an exit code.
  public static func hold(interface: String, control: Int32) -> Int32 {
    let tap = linux_open_tap(interface)
    guard tap >= 0 else {
      let reason =
        tap == -ENOENT || tap == -EACCES || tap == -EPERM
        ? "/dev/net/tun cannot be used here: `modprobe tun; chmod 0666 /dev/net/tun`"
        : "cannot make the TAP interface \(interface): \(String(cString: strerror(-tap)))"
      let text = Array("error \(reason)".utf8)
      _ = linux_send_descriptors(control, text, text.count, nil, 0, 0)
      return 1
    }
    let ready = Array("ready".utf8)
    _ = linux_send_descriptors(control, ready, ready.count, [tap], 1, 0)
    close(tap)
    var byte: UInt8 = 0
    while read(control, &byte, 1) > 0 {}
    return 0
  }
}

extension ControlSocket {
  /// The one descriptor that comes with the process's "ready".
  func receiveDescriptor(
    from process: String, milliseconds: Int32
  ) throws(SupervisorError) -> Int32 {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, milliseconds) > 0 else {
      throw .timedOut(process: process, waitingFor: "ready")
    }
    var buffer = [UInt8](repeating: 0, count: 4096)
    var received: Int32 = -1
    var count: Int32 = 0
    let length = linux_receive_descriptors(
      descriptor, &buffer, buffer.count, &received, 1, &count, Int32(MSG_DONTWAIT))
    guard length > 0 else { throw .refused(process: process, reason: "it ended at its start") }
    let message = ControlMessage(String(decoding: buffer[..<length], as: UTF8.self))
    guard message.word == "ready", count == 1, received >= 0 else {
      if received >= 0 { close(received) }
      throw .refused(process: process, reason: message.rest)
    }
    return received
  }
}

import CLinux
import Glibc
import Memory
import PCI
import VFIO
import VFIOUserMessages

/// Nanoseconds in which whatever is to come has come, on any machine: nothing takes so long unless it is held for ever.
let patience: UInt64 = 30_000_000_000

/// A server that answers by a script, on one end of a socket pair, in a thread of its own.
final class ScriptedServer: @unchecked Sendable {
  /// What to send for a message; nil closes the connection.
  typealias Script = @Sendable (MessageHeader, [UInt8], MessageStream) -> [UInt8]?

  let client: Int32
  private let end: Int32
  private let script: Script
  private var thread = pthread_t()

  private let repliesToAll: Bool

  /// - Parameter repliesToAll: also to commands that ask for no reply, as some servers do.
  init(repliesToAll: Bool = false, _ script: @escaping Script) {
    self.repliesToAll = repliesToAll
    var ends: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
    client = ends[0]
    end = ends[1]
    self.script = script
    let box = Unmanaged.passRetained(self)
    pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<ScriptedServer>.fromOpaque(argument!).takeRetainedValue().run()
        return nil
      }, box.toOpaque())
  }

  private func run() {
    let stream = MessageStream(descriptor: end)
    while let message = try? stream.receive(deadline: monotonic_nanoseconds() + patience) {
      if message.header.flags.contains(.noReply) && !repliesToAll { continue }
      guard let bytes = script(message.header, message.payload, stream) else { return }
      _ = bytes.withUnsafeBytes { buffer in
        buffer.isEmpty
          ? 0 : linux_send_descriptors(end, buffer.baseAddress!, buffer.count, nil, 0, 0)
      }
    }
  }

  func join() { pthread_join(thread, nil) }

  static func reply(
    _ header: MessageHeader, _ payload: [UInt8], size: UInt32? = nil, errno: UInt32 = 0,
    identifier: UInt16? = nil
  ) -> [UInt8] {
    var writer = ByteWriter()
    MessageHeader(
      identifier: identifier ?? header.identifier, command: header.command,
      size: size ?? UInt32(16 + payload.count), flags: errno == 0 ? .reply : [.reply, .error],
      errno: errno
    ).write(to: &writer)
    writer.write(payload)
    return writer.bytes
  }

  /// What a well-behaved server with a device of no regions answers.
  static func good(_ header: MessageHeader, _ payload: [UInt8]) -> [UInt8] {
    switch VFIOUserCommand(rawValue: header.command) {
    case .version: reply(header, VersionMessage(major: 0, minor: 1, capabilities: .init()).bytes)
    case .deviceInfo:
      reply(header, DeviceInfoMessage(flags: 3, regions: 9, interrupts: 5).bytes)
    case .regionInfo:
      reply(
        header, RegionInfoMessage(flags: 3, index: UInt32(payload[8]), size: 4096).reply(within: 32)
      )
    case .interruptInfo:
      reply(header, InterruptInfoMessage(flags: 1, index: UInt32(payload[8]), count: 2).bytes)
    case .regionRead: reply(header, payload + [UInt8](repeating: 0x11, count: Int(payload[12])))
    default: reply(header, [])
    }
  }
}

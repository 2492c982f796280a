import CLinux
import EmulatedPCI
import Glibc
import VFIOUserMessages

/// Serves a device model to vfio-user clients, one at a time: when one leaves, the device is reset and the next one is
/// taken. Single-threaded: it does something only when ``service()`` is called.
public final class VFIOUserServer {
  public let model: EmulatedFunction
  /// Becomes readable when a client connects.
  public let listening: Int32
  private var session: ClientSession?
  private var replacedMemory: UInt32
  public private(set) var refusals = Refusals()
  /// Clients that were accepted.
  public private(set) var clients: UInt64 = 0
  public private(set) var commands: UInt64 = 0
  /// DMA accesses that went by message.
  public private(set) var messageAccesses: UInt64 = 0

  /// - Parameter listening: a UNIX stream socket that listens; stays the caller's.
  public init(model: EmulatedFunction, listening: Int32) {
    self.model = model
    self.listening = listening
    replacedMemory = linux_bus_guard_replaced()
    _ = linux_fcntl(
      listening, F_SETFL, Int(linux_fcntl(listening, F_GETFL, 0)) | Int(O_NONBLOCK))
  }

  deinit { end() }

  /// Becomes readable when the client sends; -1 while there is none.
  public var client: Int32 { session?.stream.descriptor ?? -1 }

  /// Milliseconds after which ``service()`` has to be called again without any descriptor having become readable; -1
  /// for never.
  public var waitLimit: Int32 { session.map { $0.isNegotiated ? -1 : 500 } ?? -1 }

  /// Takes a client where there is none, and works off a bounded number of its messages.
  /// - Returns: whether there was anything to do.
  @discardableResult
  public func service() -> Bool {
    if session == nil { accept() }
    guard let session else { return false }
    do throws(ClientSession.End) {
      let done = try session.service(limit: 64, &refusals)
      let replaced = linux_bus_guard_replaced()
      if replaced != replacedMemory {
        replacedMemory = replaced
        // It may have been another server's client.
        if session.memory.hasLostMemory { throw ClientSession.End.refused(.truncatedMemory) }
      }
      return done > 0
    } catch {
      if case .refused(let reason) = error { refusals.count(reason) }
      end()
      return true
    }
  }

  private func accept() {
    let descriptor = linux_accept(listening)
    guard descriptor >= 0 else { return }
    clients += 1
    session = ClientSession(descriptor: descriptor, model: model)
  }

  /// Ends the connection with the client, if there is one, and resets the device.
  public func end() {
    guard let session else { return }
    commands += session.commands
    messageAccesses += session.messageDMA.messages
    model.reset()
    session.interrupts.disconnect()
    session.memory.removeAll()
    model.iommu.messages = nil
    self.session = nil
  }
}

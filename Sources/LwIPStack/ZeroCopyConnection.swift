import CLwIP
import Memory
import Stacks

/// A TCP connection that sends from the application's memory: ``SendBuffer``s of the stack's pool, read by the device where
/// they are, and received bytes seen where they lie.
///
/// It lives until it has ended, held by the stack. One thread, the stack's.
public final class ZeroCopyConnection {
  /// How a connection ended.
  public enum End: Equatable, Sendable {
    /// All that was written is acknowledged, and it is closed.
    case closed
    /// By this application.
    case reset
    /// By the peer or the stack, with lwIP's reason (err.h).
    case lost(code: Int)
  }

  private var control: UnsafeMutablePointer<tcp_pcb>?
  // Before the stack, whose pool they point to: this is the order in which they go.
  private var pending: PendingEntries
  private let stack: LwIPInterface
  private var handler: (any ConnectionHandler)?
  private var isConnected: Bool
  private var isClosing = false
  private var isAborted = false

  /// Takes over a control block, whose callbacks go to the handler from now on.
  init(
    _ control: UnsafeMutablePointer<tcp_pcb>, _ stack: LwIPInterface, isConnected: Bool
  ) {
    self.control = control
    self.stack = stack
    self.isConnected = isConnected
    pending = PendingEntries(stack.buffers)
    martlet_disable_nagle(control)
    // Released by detach.
    tcp_arg(control, Unmanaged.passRetained(self).toOpaque())
    tcp_recv(control) { argument, _, packet, _ in
      ZeroCopyConnection.from(argument).received(packet)
    }
    tcp_sent(control) { argument, _, byteCount in
      ZeroCopyConnection.from(argument).acknowledged(Int(byteCount))
    }
    // The control block is gone when this is called.
    tcp_err(control) { argument, code in
      ZeroCopyConnection.from(argument).finish(.lost(code: Int(code)))
    }
  }

  static func from(_ argument: UnsafeMutableRawPointer?) -> ZeroCopyConnection {
    Unmanaged<ZeroCopyConnection>.fromOpaque(argument!).takeUnretainedValue()
  }

  func begin(_ handler: any ConnectionHandler) { self.handler = handler }

  // MARK: What the application does

  /// Whether bytes are taken: it is connected, and neither closed nor ended.
  public var isOpen: Bool { control != nil && isConnected && !isClosing }
  /// Bytes that were taken and are not acknowledged.
  public var pendingByteCount: Int { pending.byteCount }

  /// Sends bytes from where they are. The caller may let go of their buffer afterwards, and leaves the bytes as they are
  /// until they are acknowledged.
  ///
  /// Where only a part is taken, the rest is written again once there is room; it continues the last entry then
  /// (``PendingEntries``).
  /// - Parameters:
  ///   - address: in a ``SendBuffer`` of ``LwIPInterface/buffers``.
  ///   - byteCount: as many as follow in that buffer, at most.
  /// - Returns: bytes that were taken; fewer where the stack's window is full, 0 where it is not ``isOpen``.
  /// - Throws: ``SendBufferError``: not all bytes are in one segment that is in use; none is taken.
  public func write(
    _ address: UnsafeRawPointer, byteCount: Int
  ) throws(SendBufferError) -> Int {
    let range = try stack.buffers.range(at: address, byteCount: byteCount)
    guard isOpen, let control else { return 0 }
    var taken = 0
    while taken < byteCount {
      let count = min(byteCount - taken, min(Int(martlet_send_room(control)), 0xffff))
      guard count > 0, tcp_write(control, address + taken, UInt16(count), 0) == Self.ok else {
        break
      }
      taken += count
    }
    pending.append(range.prefix(taken))
    return taken
  }

  /// Sends now what the peer's window allows of what has been written.
  public func flush() {
    if let control { tcp_output(control) }
  }

  /// Takes no more bytes; ends when those taken are acknowledged. Received bytes are refused from now on.
  public func close() {
    guard let control, !isClosing else { return }
    // lwIP would reset the connection and say nothing.
    if martlet_has_unread(control) != 0 || (!isConnected && !pending.isEmpty) { return reset() }
    isClosing = true
    guard tcp_close(control) == Self.ok else { return reset() }
    if pending.isEmpty {
      detach(control)
      finish(.closed)
    }
  }

  /// Ends at once: the peer gets a reset, and what it has not acknowledged is dropped.
  public func reset() {
    guard let control else { return }
    detach(control)
    isAborted = true
    tcp_abort(control)
    finish(.reset)
  }

  // MARK: What lwIP says

  private static let ok = err_t(ERR_OK.rawValue)
  /// lwIP must not touch a control block that was aborted while it called.
  var outcome: err_t { isAborted ? err_t(ERR_ABRT.rawValue) : Self.ok }

  func connected() -> err_t {
    isConnected = true
    handler?.connected(self)
    return outcome
  }

  private func received(_ packet: UnsafeMutablePointer<pbuf>?) -> err_t {
    guard let packet else {
      handler?.peerFinished(self)
      return outcome
    }
    // Before the application is called: it may close the connection.
    if let control { tcp_recved(control, packet.pointee.tot_len) }
    var piece: UnsafeMutablePointer<pbuf>? = packet
    while let current = piece {
      handler?.received(
        UnsafeRawBufferPointer(start: current.pointee.payload, count: Int(current.pointee.len)),
        self)
      piece = current.pointee.next
    }
    pbuf_free(packet)
    return outcome
  }

  private func acknowledged(_ byteCount: Int) -> err_t {
    pending.acknowledge(byteCount)
    handler?.acknowledged(byteCount, self)
    if isClosing, pending.isEmpty, let control {
      detach(control)
      finish(.closed)
    }
    return outcome
  }

  /// lwIP ends what it still has to do without us.
  private func detach(_ control: UnsafeMutablePointer<tcp_pcb>) {
    tcp_arg(control, nil)
    tcp_recv(control, nil)
    tcp_sent(control, nil)
    tcp_err(control, nil)
  }

  /// Lets go of everything. What the device still reads has references of its own.
  private func finish(_ end: End) {
    guard control != nil else { return }
    control = nil
    pending.removeAll()
    let last = handler
    handler = nil
    last?.ended(end, self)
    Unmanaged.passUnretained(self).release()
  }
}

/// What an application hears of its connections. Called by the stack, in its thread; it may write, close or reset there.
public protocol ConnectionHandler: AnyObject {
  /// The peer has accepted a connection that ``LwIPInterface/connect(to:port:_:)`` began.
  func connected(_ connection: ZeroCopyConnection)
  /// Bytes in order, where they lie: only valid during the call.
  func received(_ bytes: UnsafeRawBufferPointer, _ connection: ZeroCopyConnection)
  /// The peer sends no more.
  func peerFinished(_ connection: ZeroCopyConnection)
  /// So many bytes more have arrived, and their entries have been dropped.
  func acknowledged(_ byteCount: Int, _ connection: ZeroCopyConnection)
  /// The last call.
  func ended(_ end: ZeroCopyConnection.End, _ connection: ZeroCopyConnection)
}

extension ConnectionHandler {
  public func connected(_ connection: ZeroCopyConnection) {}
  public func acknowledged(_ byteCount: Int, _ connection: ZeroCopyConnection) {}
}

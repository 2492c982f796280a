import Capture
import Channel
import Glibc
import Memory
import Statistics

/// A capture of a run's packets, asked for over the run's socket. It ends with this value, or with the run. One thread.
public struct CaptureClient: ~Copyable {
  private let socket: Int32
  public var reader: CaptureReader
  /// Names of instances by identifier, as far as they have been heard of.
  public private(set) var names: [UInt32: String] = [:]
  public private(set) var hasEnded = false
  private var rules = KnownRules()

  /// What is to be captured.
  public struct Request: Sendable {
    /// As ``/Capture/CapturePoint`` names them, those of one instance as `channel-rx:NAME`.
    public var points: [String]
    /// The compiled filter; empty for all packets.
    public var filter: [FilterInstruction] = []
    public var snapLength: UInt32 = 262_144
    /// Of the ring of each queue, a power of two.
    public var ringBytes = 4 << 20
    /// Each packet has a time of its own.
    public var isPrecise = false

    public init(points: [String]) { self.points = points }
  }

  /// Instructions of a filter that go with one message.
  private static let instructionsInMessage = 1000

  /// - Parameter path: the run's socket.
  /// - Throws: ``SupervisorError/input(_:)`` with why it is refused, or that nobody is there.
  public init(path: String, _ request: Request) throws(SupervisorError) {
    let socket: Int32
    do throws(AdministrationError) {
      socket = try AdministrationClient.connect(path)
    } catch {
      throw .unreachable("\(error)")
    }
    do throws(SupervisorError) {
      var rest = request.filter[...]
      while !rest.isEmpty {
        ControlMessage.send(
          "filter code=" + FilterText.text(rest.prefix(Self.instructionsInMessage)), to: socket)
        rest = rest.dropFirst(Self.instructionsInMessage)
      }
      ControlMessage.send(
        "capture points=\(request.points.joined(separator: ",")) snap=\(request.snapLength)"
          + " ring=\(request.ringBytes) precise=\(request.isPrecise ? "yes" : "no")", to: socket)
      reader = try Self.answer(socket)
    } catch {
      close(socket)
      throw error
    }
    self.socket = socket
  }

  deinit { close(socket) }

  private static func answer(_ socket: Int32) throws(SupervisorError) -> CaptureReader {
    var entry = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, 5000) > 0 else {
      throw .timedOut(process: "supervisor", waitingFor: "capture")
    }
    guard case .message(let message, let descriptors) = ControlMessage.receive(from: socket) else {
      throw .input("the supervisor has closed the connection")
    }
    guard message.word == "capturing", descriptors.count == 2,
      let slot: Int = message.number("slot"), (0..<CaptureArea.slots).contains(slot),
      let session: UInt64 = message.number("session"), let queues: Int = message.number("queues"),
      (1...64).contains(queues), let ring: Int = message.number("ring"), ring.nonzeroBitCount == 1,
      ring <= CaptureArea.maximumRingBytes
    else {
      for descriptor in descriptors { close(descriptor) }
      throw .input(Refusal(message)?.reason ?? "the supervisor's answer is none")
    }
    return try asInput { () throws(MemoryError) -> CaptureReader in
      let area: CaptureArea
      do throws(MemoryError) {
        area = try CaptureArea(adopting: descriptors[0], queues: queues, isWritable: false)
      } catch {
        close(descriptors[1])
        throw error
      }
      return CaptureReader(
        area: area, readers: try CaptureReaders(adopting: descriptors[1], queues: queues),
        slot: slot, session: session, ringBytes: ring)
    }
  }

  /// What to watch: when it becomes readable, ``hear()`` is due.
  public var descriptor: Int32 { socket }

  /// The name of the rule that a record says its packet met; nil for none.
  public mutating func ruleName(_ record: CaptureRecord) -> String? {
    if record.rule == CaptureRecord.noRule { return nil }
    if let name = rules[record.rule] { return name }
    // The supervisor says it before the driver host hears of the rule: it has come by now.
    hear()
    return rules[record.rule] ?? "\(record.rule)"
  }

  /// Reads what the supervisor has said: who attaches, which rules there are, or that the run has ended.
  public mutating func hear() {
    // Bounded: no more instances than there can be attach between two looks.
    for _ in 0..<1024 {
      switch ControlMessage.receive(from: socket) {
      case .nothing: return
      case .end:
        hasEnded = true
        return
      case .message(let message, let descriptors):
        if let names = RuleNames(message, descriptors) { rules.note(names) }
        for descriptor in descriptors { close(descriptor) }
        if message.word == "instance", let id: UInt32 = message.number("id"),
          let name = message["name"]
        {
          names[id] = name
        }
        if message.word == "refused" { hasEnded = true }
      }
    }
  }
}

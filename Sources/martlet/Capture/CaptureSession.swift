import CLinux
import Capture
import CaptureFile
import Glibc
import Supervisor

/// One capture from its beginning to its end: waits for the run, writes what is captured, and at last how much that was.
struct CaptureSession {
  let socket: String
  let request: CaptureClient.Request
  /// As it was typed.
  let filter: String
  let count: UInt64?
  var isQuiet = false

  /// Records of a queue between two looks at everything else.
  private static let batch = 2048

  func run(into output: borrowing CaptureOutput) throws {
    let end = linux_termination_descriptor()
    guard end >= 0 else { throw CommandFailure(code: 1, text: "signals cannot be waited for") }
    defer { close(end) }
    var writer = CaptureWriter(request, filter: filter)
    guard try output.write(writer.file.take(), until: end),
      var client = try awaitRun(until: end)
    else { return }
    writer.begin()
    if !isQuiet {
      writeLine("capturing at \(request.points.joined(separator: ", ")), until Ctrl-C", to: 2)
    }
    var isLast = false
    while true {
      isLast = isReadable(end)
      client.hear()
      isLast = isLast || client.hasEnded
      let read = writer.read(&client, atMost: count.map { $0 - writer.written }, Self.batch)
      if read > 0, !(try output.write(writer.file.take(), until: end)) { break }
      if let count, writer.written >= count { break }
      if isLast && read == 0 { break }
      if read < Self.batch && !isLast { wait(for: client.descriptor, end, after: read) }
    }
    let totals = writer.finish(client)
    _ = try output.write(writer.file.take(), until: end)
    if isQuiet { return }
    writeLine(
      "\(writer.written) packets written; \(totals.matched) matched of \(totals.seen); \(totals.dropped) lost because the buffer was full",
      to: 2)
  }

  /// - Returns: nil where the process is told to end before.
  func awaitRun(until end: Int32) throws -> CaptureClient? {
    var hasSaid = false
    while !isReadable(end) {
      if access(socket, F_OK) == 0 {
        do {
          return try CaptureClient(path: socket, request)
        } catch SupervisorError.unreachable {
          // A socket that a run before has left, or one that does not listen yet.
        } catch {
          throw CommandFailure.failed(error)
        }
      }
      if !hasSaid && !isQuiet { writeLine("waiting for a run at \(socket)", to: 2) }
      hasSaid = true
      var entry = pollfd(fd: end, events: Int16(POLLIN), revents: 0)
      poll(&entry, 1, 100)
    }
    return nil
  }

  /// Nothing tells a reader that packets have come: it looks often while there are any.
  func wait(for socket: Int32, _ end: Int32, after read: Int) {
    var entries = [
      pollfd(fd: socket, events: Int16(POLLIN), revents: 0),
      pollfd(fd: end, events: Int16(POLLIN), revents: 0),
    ]
    poll(&entries, 2, read > 0 ? 1 : 10)
  }

  func isReadable(_ descriptor: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) > 0
  }
}

/// Turns records into a pcapng file, with an interface for each point and instance.
struct CaptureWriter {
  var file = CaptureFile(application: "martlet capture")
  /// Packets.
  private(set) var written: UInt64 = 0
  private let filter: String
  private let snapLength: UInt32
  private let points: [String]
  private var began: UInt64 = 0
  private var interfaces: [Key: Interface] = [:]

  private struct Key: Hashable {
    var point: CapturePoint
    var instance: UInt32
  }
  private struct Interface {
    var number: Int
    var written: UInt64 = 0
  }

  /// - Parameter filter: as it was typed.
  init(_ request: CaptureClient.Request, filter: String) {
    self.filter = filter
    snapLength = request.snapLength
    points = request.points
    for point in CapturePoint.allCases
    where !point.isOfInstances && !point.isOfStages && request.points.contains(point.name) {
      addInterface(Key(point: point, instance: 0), name: point.name, of: "")
    }
  }

  /// The capture begins now.
  mutating func begin() { began = clock_nanoseconds(CLOCK_REALTIME) }

  /// - Returns: records.
  mutating func read(_ client: inout CaptureClient, atMost limit: UInt64?, _ batch: Int) -> Int {
    var records: [(record: CaptureRecord, queue: Int, bytes: [UInt8])] = []
    let room = Int(min(limit ?? .max, UInt64(batch)))
    for queue in 0..<client.reader.queues where records.count < room {
      client.reader.read(queue: queue, limit: room - records.count) {
        records.append(($0, queue, Array($1)))
      }
    }
    // Each queue's are in order.
    if client.reader.queues > 1 { records.sort { $0.record.time < $1.record.time } }
    for (record, queue, bytes) in records {
      let rule = client.ruleName(record)
      add(record, queue, bytes, client.names, rule: rule)
    }
    return records.count
  }

  private mutating func add(
    _ record: CaptureRecord, _ queue: Int, _ captured: [UInt8], _ names: [UInt32: String],
    rule: String?
  ) {
    guard let point = CapturePoint(rawValue: record.point) else { return }
    let key = Key(point: point, instance: record.instance)
    if interfaces[key] == nil {
      let name = names[record.instance] ?? "\(record.instance)"
      addInterface(key, name: "\(point.name):\(name)", of: name)
    }
    guard let interface = interfaces[key] else { return }
    interfaces[key]?.written += 1
    var bytes = captured
    record.completeChecksum(in: &bytes)
    var comments: [String] = []
    if let rule { comments.append("rule \(rule)") }
    if record.segmentBytes > 0 {
      comments.append("the device cuts it into segments of \(record.segmentBytes) bytes")
    }
    bytes.withUnsafeBytes {
      file.add(
        CaptureFile.Packet(
          interface: interface.number, time: record.time, byteCount: record.packetBytes,
          isInbound: point.isInbound, queue: UInt32(queue),
          comment: comments.isEmpty ? nil : comments.joined(separator: "; ")), $0)
    }
    written += 1
  }

  private mutating func addInterface(_ key: Key, name: String, of instance: String) {
    let number = file.addInterface(
      name, description: Self.description(key.point, instance), snapLength: snapLength,
      filter: filter)
    interfaces[key] = Interface(number: number)
  }

  private static func description(_ point: CapturePoint, _ instance: String) -> String {
    switch point {
    case .wireReceive: "what the driver receives"
    case .wireTransmit: "what the driver is given to send"
    case .channelReceive: "what instance \(instance) gets"
    case .channelTransmit: "what instance \(instance) sends"
    case .stageReceive: "what stage \(instance) lets go to instances"
    case .stageTransmit: "what stage \(instance) lets go to the wire"
    }
  }

  /// Says how much there was at each point.
  mutating func finish(_ client: borrowing CaptureClient) -> CaptureCounts {
    var totals = CaptureCounts()
    // Readers want one, even where there was no instance.
    if interfaces.isEmpty, let first = points.first {
      _ = file.addInterface(first, description: "", snapLength: snapLength, filter: filter)
    }
    let now = clock_nanoseconds(CLOCK_REALTIME)
    for (key, interface) in interfaces.sorted(by: { $0.value.number < $1.value.number }) {
      let counts = client.reader.counts(key.point, instance: Int(key.instance & 63))
      totals += counts
      file.addStatistics(
        of: interface.number, from: began, to: now, counts, written: interface.written)
    }
    return totals
  }
}

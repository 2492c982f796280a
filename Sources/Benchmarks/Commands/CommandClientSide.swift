import CLinux
import Channel
import Glibc
import Histogram
import Loops

/// The client's side, in a process of its own: `martlet bench-end commands`. Told by lines what to do; descriptor 3 is the
/// command memory, 4 its doorbell, 5 the socket that is the peer.
public enum CommandClientSide {
  /// - Parameter words: the ids of two credentials: for the channel, and for the socket.
  public static func run(credentials words: [UInt64]) throws {
    guard words.count == 4 else { return }
    var side = Side(
      client: CommandClient(
        try CommandMemory(adopting: 3), doorbell: CommandDoorbell(adopting: 4),
        credential: CredentialID(high: words[0], low: words[1])),
      socket: SocketClient(credential: CredentialID(high: words[2], low: words[3])))
    side.client.spins = .max
    pinThread(toCore: 1)
    print("ready")
    fflush(nil)
    while let command = EndCommand.next() {
      let values: [Double]
      switch command.word {
      case "roundtrip":
        values = try measureRoundTrips(command) { index throws(CommandError) in
          _ = try side.client.call(SteadyService.command(index))
        }
        try side.client.end()
      case "rate": values = try side.rate(command)
      case "count":
        for index in 0..<command.milliseconds {
          _ = try side.client.call(SteadyService.command(index))
        }
        values = [1]
        try side.client.end()
      case "socket-roundtrip", "polled-socket-roundtrip":
        side.socket.polls = command.word.hasPrefix("polled")
        values = try measureRoundTrips(command) { index throws(CommandError) in
          try side.socket.call(SteadyService.command(index))
        }
        try side.socket.end()
      case "socket-rate", "polled-socket-rate":
        side.socket.polls = command.word.hasPrefix("polled")
        values = try side.socketRate(command)
      default: continue
      }
      print("result", values.map { "\($0)" }.joined(separator: " "))
      fflush(nil)
    }
  }

  /// - Returns: p50, p99 and p99.9 in nanoseconds, and this thread's share of its core.
  @inline(__always)
  private static func measureRoundTrips(
    _ command: EndCommand, _ body: (Int) throws(CommandError) -> Void
  ) throws(CommandError) -> [Double] {
    var histogram = Histogram<UInt64>(
      highestTrackableValue: 1_000_000_000, numberOfSignificantValueDigits: .three)
    for index in 0..<100 { try body(index) }
    let watch = Stopwatch()
    var start = monotonic_nanoseconds()
    let end = start + UInt64(command.milliseconds) * 1_000_000
    var index = 0
    while start < end {
      try body(index)
      index &+= 1
      let now = monotonic_nanoseconds()
      histogram.record(min(now - start, 999_999_999))
      start = now
    }
    let share = watch.cpuShare
    return [50, 99, 99.9].map { Double(histogram.valueAtPercentile($0)) } + [share]
  }

  private struct Side: ~Copyable {
    var client: CommandClient
    var socket: SocketClient

    /// - Returns: millions of commands a second, and this thread's share of its core.
    mutating func rate(_ command: EndCommand) throws -> [Double] {
      let watch = Stopwatch()
      let limit = UInt64(command.milliseconds) * 1_000_000
      var (sent, done) = (0, 0)
      while sent & 1023 != 0 || watch.elapsed < limit {
        while sent - done < command.size {
          _ = try client.submit(SteadyService.command(sent))
          sent += 1
          if sent & 1023 == 0 { break }
        }
        while try client.poll() != nil { done += 1 }
      }
      let result = [Double(done) * 1000 / Double(watch.elapsed), watch.cpuShare]
      while done < sent { if try client.poll() != nil { done += 1 } }
      try client.end()
      return result
    }

    mutating func socketRate(_ command: EndCommand) throws -> [Double] {
      let watch = Stopwatch()
      let limit = UInt64(command.milliseconds) * 1_000_000
      var (sent, done) = (0, 0)
      while sent & 1023 != 0 || watch.elapsed < limit {
        while sent - done < command.size {
          try socket.submit(SteadyService.command(sent))
          sent += 1
          if sent & 1023 == 0 { break }
        }
        try socket.complete()
        done += 1
      }
      let result = [Double(done) * 1000 / Double(watch.elapsed), watch.cpuShare]
      while done < sent {
        try socket.complete()
        done += 1
      }
      try socket.end()
      return socket.polls ? result : [result[0], 1]
    }
  }
}

extension CommandClient {
  /// Lets the server come to its end.
  fileprivate mutating func end() throws(CommandError) {
    try unregister(MemoryHandleID(high: 0, low: 0))
  }
}

/// The same commands over descriptor 5: a socket that keeps messages apart.
private struct SocketClient: ~Copyable {
  let credential: CredentialID
  /// Looks again and again and never sleeps.
  var polls = false
  private var sequence: UInt64 = 0
  // Invariant: 64 bytes for a submission, then 64 for a completion, aligned to 8, until deinit.
  private let entry = UnsafeMutableRawPointer.allocate(byteCount: 128, alignment: 64)

  init(credential: CredentialID) { self.credential = credential }

  deinit { entry.deallocate() }

  mutating func submit(_ command: CommandSubmission) throws(CommandError) {
    var command = command
    sequence += 1
    command.sequence = sequence
    command.credential = credential
    command.write(to: entry)
    guard send(5, entry, 64, Int32(MSG_NOSIGNAL)) == 64 else { throw .closed(.gone) }
  }

  mutating func complete() throws(CommandError) {
    while true {
      let count = recv(5, entry + 64, 64, polls ? Int32(MSG_DONTWAIT) : 0)
      if count == 64 { break }
      if count == 0 || errno != EAGAIN { throw .closed(.gone) }
    }
    let status = CommandCompletion(reading: entry + 64).status
    if status != .done { throw .refused(status) }
  }

  mutating func call(_ command: CommandSubmission) throws(CommandError) {
    try submit(command)
    try complete()
  }

  mutating func end() throws(CommandError) {
    try call(CommandSubmission(.unregisterMemory))
  }
}

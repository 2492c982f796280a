import CLinux
import Channel
import Memory
import Testing

@testable import Commands

/// Each command, from a client to a service and back.
@Suite struct CommandTests {
  @Test func theFastCommandsAreAnsweredAtOnce() throws {
    let server = try TestServer()
    let instance = try server.attach(5, uid: 77)
    let first = try instance.submit(CommandSubmission(.statistics, .max))
    let second = try instance.submit(CommandSubmission(.statistics, 2))
    let third = try instance.submit(CommandSubmission(.linkState))
    let fourth = try instance.submit(CommandSubmission(.time))
    let fifth = try instance.submit(CommandSubmission(.statistics, 4))
    #expect(try instance.status() == nil)
    #expect(server.turn())
    let all = try #require(try instance.poll())
    #expect(all.sequence == first && all.status == .done)
    let base: UInt64 = 5 << 32
    #expect(
      InstanceStatistics(all.values)
        == InstanceStatistics(
          receivedPackets: base + 1, receivedBytes: base + 2, receiveDropped: base + 3,
          sentPackets: base + 4, sentBytes: base + 5, sendRefused: base + 19))
    let one = try #require(try instance.poll())
    #expect(one.sequence == second && InstanceStatistics(one.values).sendRefused == base + 12)
    let link = try #require(try instance.poll())
    #expect(
      link.sequence == third
        && LinkState(link.values) == LinkState(isUp: true, speed: 10_000, mtu: 1500))
    let time = try #require(try instance.poll())
    #expect(time.sequence == fourth && CommandTime(time.values).realtime == 77)
    let distance = monotonic_nanoseconds() - CommandTime(time.values).monotonic
    #expect(distance < 10_000_000_000)
    let none = try #require(try instance.poll())
    #expect(none.sequence == fifth && none.status == .notFound)
    #expect(server.turn() == false)
    #expect(server.count(.done) == 4 && server.count(.notFound) == 1)
  }

  @Test func claimsCrossInAndBesideTheEntry() throws {
    let server = try TestServer()
    let instance = try server.attach(5)
    let short = "ipv4:10.0.0.3/tcp/80"
    let exact = String(repeating: "x", count: 32)
    let long = "ipv6:2001:db8:1234:5678:9abc:def0:1234:5678/udp/50000-50999"
    let longest = String(repeating: "y", count: 256)
    for claim in [short, exact, long, longest] {
      try instance.submit(.join, text: claim)
    }
    try instance.submit(.leave, text: long)
    #expect(throws: CommandError.textTooLong(byteCount: 257)) {
      try instance.submit(.join, text: longest + "y")
    }
    #expect(server.turn())
    #expect(server.service.joined.map(\.claim) == [short, exact, long, longest])
    #expect(server.service.left == [long])
    for _ in 0..<5 { #expect(try instance.status() == .done) }
  }

  @Test func memoryCommandsCarryTheirOperands() throws {
    let server = try TestServer()
    let instance = try server.attach(5)
    try instance.submit(CommandSubmission(.registerMemory, 7, 4096))
    try instance.submit(CommandSubmission(.unregisterMemory, 7, 4096))
    try instance.submit(CommandSubmission(.unregisterMemory, 8, 4096))
    try instance.submit(CommandSubmission(.grow, 2 << 20))
    try instance.submit(CommandSubmission(.grow, .max))
    try instance.submit(CommandSubmission(.shrink, 2 << 20))
    #expect(server.turn())
    let registered = try #require(try instance.poll())
    #expect(
      MemoryRegistration(registered.values) == MemoryRegistration(position: 7, byteCount: 4096))
    #expect(try instance.status() == .done)
    #expect(try instance.status() == .notFound)
    #expect(try instance.poll()?.values[0] == 66 << 20)
    #expect(try instance.status() == .exhausted)
    #expect(try instance.status() == .unsupported)
  }

  @Test func unknownAndMalformedCommandsAreRefused() throws {
    let server = try TestServer()
    let instance = try server.attach(5)
    var command = CommandSubmission(.time)
    command.number = 4711
    try instance.submit(command)
    command.number = 0
    try instance.submit(command)
    // A text that is none, is empty, too long, outside, or not of visible characters.
    let texts: [(form: UInt16, length: UInt16, operand: UInt64)] = [
      (0, 4, 0x6161_6161), (1, 0, 0), (1, 33, 0), (2, 257, 0), (2, 1, 64 * 256), (2, 1, .max),
      (2, 256, 63 * 256 + 1), (1, 2, 0x0a61), (3, 1, 0),
    ]
    for text in texts {
      var command = CommandSubmission(.join, text.operand)
      command.form = text.form
      command.length = text.length
      try instance.submit(command)
    }
    server.turnUntilQuiet()
    #expect(try instance.status() == .unknownCommand)
    #expect(try instance.status() == .unknownCommand)
    for text in texts {
      #expect(try instance.status() == .malformed, "\(text)")
    }
    #expect(server.service.joined.isEmpty)
    #expect(server.count(.malformed) == UInt64(texts.count))
  }

  @Test func slowCommandsCompleteInAnyOrder() throws {
    let server = try TestServer()
    server.service.answer = nil
    let instance = try server.attach(5)
    let first = try instance.submit(.join, text: "a")
    let second = try instance.submit(.join, text: "b")
    let third = try instance.submit(CommandSubmission(.linkState))
    #expect(server.turn())
    // What is fast does not wait for what is slow.
    #expect(try instance.poll()?.sequence == third)
    #expect(try instance.status() == nil)
    #expect(server.complete(server.service.waiting[1].token, .refused(.conflict)) == .delivered)
    #expect(server.complete(server.service.waiting[0].token, .done) == .delivered)
    let one = try #require(try instance.poll())
    #expect(one.sequence == second && one.status == .conflict)
    let other = try #require(try instance.poll())
    #expect(other.sequence == first && other.status == .done)
    // A token is good once.
    #expect(server.complete(server.service.waiting[0].token, .done) == .gone)
    #expect(try instance.status() == nil)
  }

  @Test func noMoreThanSomeCommandsOfAClientWait() throws {
    let server = try TestServer()
    server.service.answer = nil
    let instance = try server.attach(5)
    for _ in 0...ServedClient.waitingLimit { try instance.submit(.join, text: "a") }
    server.turnUntilQuiet()
    #expect(server.service.waiting.count == ServedClient.waitingLimit)
    #expect(try instance.status() == .busy)
    #expect(server.complete(server.service.waiting[3].token, .done) == .delivered)
    try instance.submit(.join, text: "b")
    #expect(server.turn())
    #expect(server.service.waiting.last?.what == "join b")
  }

  @Test func aClientHasNoMoreOnTheWayThanThereAreEntries() throws {
    let server = try TestServer()
    let instance = try server.attach(5)
    for _ in 0..<64 { try instance.submit(CommandSubmission(.time)) }
    #expect(throws: CommandError.full) { try instance.submit(CommandSubmission(.time)) }
    server.turnUntilQuiet()
    // Not read yet: there is still no room.
    #expect(throws: CommandError.full) { try instance.submit(CommandSubmission(.time)) }
    for _ in 0..<64 { #expect(try instance.status() == .done) }
    try instance.submit(CommandSubmission(.time))
    #expect(server.turn())
    #expect(server.closed() == nil)
  }

  @Test func whatIsNotWaitedForIsSetAside() throws {
    let server = try TestServer()
    let instance = try server.attach(5)
    let first = try instance.submit(CommandSubmission(.time))
    let second = try instance.submit(CommandSubmission(.linkState))
    let third = try instance.submit(CommandSubmission(.time))
    #expect(server.turn())
    #expect(try instance.client.completion(of: third).sequence == third)
    #expect(try instance.poll()?.sequence == first)
    #expect(try instance.poll()?.sequence == second)
    #expect(try instance.status() == nil)
  }

  @Test func indicesRunThroughTheirEnd() throws {
    let server = try TestServer()
    let instance = try server.attach(5, startIndex: .max - 100)
    for round in 0..<300 {
      // Long texts too: their places go with the entries.
      let claim = String(repeating: "c", count: 40) + "\(round)"
      try instance.submit(.join, text: claim)
      try instance.submit(CommandSubmission(.time))
      #expect(server.turn())
      #expect(server.service.joined.last?.claim == claim)
      #expect(try instance.status() == .done)
      #expect(try instance.status() == .done)
    }
    #expect(server.closed() == nil)
  }
}

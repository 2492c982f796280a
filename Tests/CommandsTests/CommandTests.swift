import Channel
import Memory
import Testing

@testable import Commands

/// Each command, from a client to a service and back.
@Suite struct CommandTests {
  @Test func theFastCommandsAreAnsweredAtOnce() throws {
    var server = try CommandServer()
    var service = ScriptedService()
    var instance = try server.attach(5, uid: 77)
    let first = try instance.client.submit(CommandSubmission(.statistics, .max))
    let second = try instance.client.submit(CommandSubmission(.statistics, 2))
    let third = try instance.client.submit(CommandSubmission(.linkState))
    let fourth = try instance.client.submit(CommandSubmission(.time))
    let fifth = try instance.client.submit(CommandSubmission(.statistics, 4))
    #expect(try instance.client.poll() == nil)
    #expect(server.turn(&service))
    let all = try #require(try instance.client.poll())
    #expect(all.sequence == first && all.status == .done)
    let base: UInt64 = 5 << 32
    #expect(
      InstanceStatistics(all.values)
        == InstanceStatistics(
          receivedPackets: base + 1, receivedBytes: base + 2, receiveDropped: base + 3,
          sentPackets: base + 4, sentBytes: base + 5, sendRefused: base + 19))
    let one = try #require(try instance.client.poll())
    #expect(one.sequence == second && InstanceStatistics(one.values).sendRefused == base + 12)
    let link = try #require(try instance.client.poll())
    #expect(
      link.sequence == third
        && LinkState(link.values) == LinkState(isUp: true, speed: 10_000, mtu: 1500))
    let time = try #require(try instance.client.poll())
    #expect(time.sequence == fourth && CommandTime(time.values).realtime == 77)
    let distance = CommandServer.now - CommandTime(time.values).monotonic
    #expect(distance < 10_000_000_000)
    let none = try #require(try instance.client.poll())
    #expect(none.sequence == fifth && none.status == .notFound)
    #expect(server.turn(&service) == false)
    #expect(server.counters[.done] == 4 && server.counters[.notFound] == 1)
  }

  @Test func claimsCrossInAndBesideTheEntry() throws {
    var server = try CommandServer()
    var service = ScriptedService()
    var instance = try server.attach(5)
    let short = "ipv4:10.0.0.3/tcp/80"
    let exact = String(repeating: "x", count: 32)
    let long = "ipv6:2001:db8:1234:5678:9abc:def0:1234:5678/udp/50000-50999"
    let longest = String(repeating: "y", count: 256)
    for claim in [short, exact, long, longest] {
      _ = try instance.client.submit(.join, text: claim)
    }
    _ = try instance.client.submit(.leave, text: long)
    #expect(throws: CommandError.textTooLong(byteCount: 257)) {
      try instance.client.submit(.join, text: longest + "y")
    }
    #expect(server.turn(&service))
    #expect(service.joined.map(\.claim) == [short, exact, long, longest])
    #expect(service.left == [long])
    for _ in 0..<5 { #expect(try instance.client.poll()?.status == .done) }
  }

  @Test func memoryCommandsCarryTheirOperands() throws {
    var server = try CommandServer()
    var service = ScriptedService()
    var instance = try server.attach(5)
    _ = try instance.client.submit(CommandSubmission(.registerMemory, 7, 4096))
    _ = try instance.client.submit(CommandSubmission(.unregisterMemory, 7, 4096))
    _ = try instance.client.submit(CommandSubmission(.unregisterMemory, 8, 4096))
    _ = try instance.client.submit(CommandSubmission(.grow, 2 << 20))
    _ = try instance.client.submit(CommandSubmission(.grow, .max))
    _ = try instance.client.submit(CommandSubmission(.shrink, 2 << 20))
    #expect(server.turn(&service))
    let registered = try #require(try instance.client.poll())
    #expect(
      MemoryRegistration(registered.values) == MemoryRegistration(position: 7, byteCount: 4096))
    #expect(try instance.client.poll()?.status == .done)
    #expect(try instance.client.poll()?.status == .notFound)
    #expect(try instance.client.poll()?.values[0] == 66 << 20)
    #expect(try instance.client.poll()?.status == .exhausted)
    #expect(try instance.client.poll()?.status == .unsupported)
  }

  @Test func unknownAndMalformedCommandsAreRefused() throws {
    var server = try CommandServer()
    var service = ScriptedService()
    var instance = try server.attach(5)
    var command = CommandSubmission(.time)
    command.number = 4711
    _ = try instance.client.submit(command)
    command.number = 0
    _ = try instance.client.submit(command)
    // A text that is none, is empty, too long, outside, or not of visible characters.
    let texts: [(form: UInt16, length: UInt16, operand: UInt64)] = [
      (0, 4, 0x6161_6161), (1, 0, 0), (1, 33, 0), (2, 257, 0), (2, 1, 64 * 256), (2, 1, .max),
      (2, 256, 63 * 256 + 1), (1, 2, 0x0a61), (3, 1, 0),
    ]
    for text in texts {
      var command = CommandSubmission(.join, text.operand)
      command.form = text.form
      command.length = text.length
      _ = try instance.client.submit(command)
    }
    while server.turn(&service) {}
    #expect(try instance.client.poll()?.status == .unknownCommand)
    #expect(try instance.client.poll()?.status == .unknownCommand)
    for text in texts {
      #expect(try instance.client.poll()?.status == .malformed, "\(text)")
    }
    #expect(service.joined.isEmpty)
    #expect(server.counters[.malformed] == UInt64(texts.count))
  }

  @Test func slowCommandsCompleteInAnyOrder() throws {
    var server = try CommandServer()
    var service = ScriptedService()
    service.answer = nil
    var instance = try server.attach(5)
    let first = try instance.client.submit(.join, text: "a")
    let second = try instance.client.submit(.join, text: "b")
    let third = try instance.client.submit(CommandSubmission(.linkState))
    #expect(server.turn(&service))
    // What is fast does not wait for what is slow.
    #expect(try instance.client.poll()?.sequence == third)
    #expect(try instance.client.poll() == nil)
    #expect(server.complete(service.waiting[1].token, .refused(.conflict)) == .delivered)
    #expect(server.complete(service.waiting[0].token, .done) == .delivered)
    let one = try #require(try instance.client.poll())
    #expect(one.sequence == second && one.status == .conflict)
    let other = try #require(try instance.client.poll())
    #expect(other.sequence == first && other.status == .done)
    // A token is good once.
    #expect(server.complete(service.waiting[0].token, .done) == .gone)
    #expect(try instance.client.poll() == nil)
  }

  @Test func noMoreThanSomeCommandsOfAClientWait() throws {
    var server = try CommandServer()
    var service = ScriptedService()
    service.answer = nil
    var instance = try server.attach(5)
    for _ in 0...ServedClient.waitingLimit { _ = try instance.client.submit(.join, text: "a") }
    while server.turn(&service) {}
    #expect(service.waiting.count == ServedClient.waitingLimit)
    #expect(try instance.client.poll()?.status == .busy)
    #expect(server.complete(service.waiting[3].token, .done) == .delivered)
    _ = try instance.client.submit(.join, text: "b")
    #expect(server.turn(&service))
    #expect(service.waiting.last?.what == "join b")
  }

  @Test func aClientHasNoMoreOnTheWayThanThereAreEntries() throws {
    var server = try CommandServer()
    var service = ScriptedService()
    var instance = try server.attach(5)
    for _ in 0..<64 { _ = try instance.client.submit(CommandSubmission(.time)) }
    #expect(throws: CommandError.full) { try instance.client.submit(CommandSubmission(.time)) }
    while server.turn(&service) {}
    // Not read yet: there is still no room.
    #expect(throws: CommandError.full) { try instance.client.submit(CommandSubmission(.time)) }
    for _ in 0..<64 { #expect(try instance.client.poll()?.status == .done) }
    _ = try instance.client.submit(CommandSubmission(.time))
    #expect(server.turn(&service))
    #expect(server.nextClosed() == nil)
  }

  @Test func whatIsNotWaitedForIsSetAside() throws {
    var server = try CommandServer()
    var service = ScriptedService()
    var instance = try server.attach(5)
    let first = try instance.client.submit(CommandSubmission(.time))
    let second = try instance.client.submit(CommandSubmission(.linkState))
    let third = try instance.client.submit(CommandSubmission(.time))
    #expect(server.turn(&service))
    #expect(try instance.client.completion(of: third).sequence == third)
    #expect(try instance.client.poll()?.sequence == first)
    #expect(try instance.client.poll()?.sequence == second)
    #expect(try instance.client.poll() == nil)
  }

  @Test func indicesRunThroughTheirEnd() throws {
    var server = try CommandServer()
    var service = ScriptedService()
    var instance = try server.attach(5, startIndex: .max - 100)
    for round in 0..<300 {
      // Long texts too: their places go with the entries.
      let claim = String(repeating: "c", count: 40) + "\(round)"
      _ = try instance.client.submit(.join, text: claim)
      _ = try instance.client.submit(CommandSubmission(.time))
      #expect(server.turn(&service))
      #expect(service.joined.last?.claim == claim)
      #expect(try instance.client.poll()?.status == .done)
      #expect(try instance.client.poll()?.status == .done)
    }
    #expect(server.nextClosed() == nil)
  }
}

extension CommandCompletion: @retroactive Equatable {
  public static func == (left: CommandCompletion, right: CommandCompletion) -> Bool {
    left.sequence == right.sequence && left.statusValue == right.statusValue
  }
}

import CLinux
import Channel
import Glibc
import Testing

@testable import Commands

/// Clients that break the rules of the rings, and what is left of them.
@Suite struct HostileTests {
  // Hostile cases S1 to S4: an index too far ahead, backwards, and the consumer's beyond the producer's.
  @Test(arguments: [65, 1 << 31, UInt32.max] as [UInt32])
  func aSubmissionIndexThatJumpsClosesTheClient(_ index: UInt32) throws {
    let server = try TestServer()
    let hostile = try server.attach(5)
    let polite = try server.attach(6)
    hostile.memory.set(128, index)
    try polite.submit(CommandSubmission(.time))
    #expect(server.turn())
    let closed = try #require(server.closed())
    #expect(closed.instance == 5 && closed.reason == .indexJump)
    #expect(server.closed() == nil)
    #expect(hostile.closure == .indexJump)
    #expect(server.service.served[5] == nil)
    #expect(try polite.status() == .done)
    // It is looked at no more, and its place can be had again.
    #expect(server.turn() == false)
    #expect(server.remove(5))
    let next = try server.attach(5 | 1 << 8)
    try next.submit(CommandSubmission(.time))
    server.turn()
    #expect(try next.status() == .done)
    #expect(server.server.counters.closed == 1)
  }

  @Test func anIndexThatGoesBackClosesTheClient() throws {
    let server = try TestServer()
    let hostile = try server.attach(5)
    for _ in 0..<10 { try hostile.submit(CommandSubmission(.time)) }
    server.turnUntilQuiet()
    hostile.memory.set(128, 9)
    server.turn()
    #expect(server.closed()?.reason == .indexJump)
  }

  @Test(arguments: [65, 128, 1 << 31, UInt32.max] as [UInt32])
  func aCompletionIndexBeyondWhatWasPublishedClosesTheClient(_ index: UInt32) throws {
    let server = try TestServer()
    let hostile = try server.attach(5)
    for _ in 0..<64 { try hostile.submit(CommandSubmission(.time)) }
    server.turnUntilQuiet()
    // Only now is it looked at.
    hostile.memory.set(512, index)
    hostile.memory.set(128, 65)
    server.turn()
    #expect(server.closed()?.reason == .indexJump)
  }

  @Test func aCompletionIndexThatGoesBackClosesTheClient() throws {
    let server = try TestServer()
    let hostile = try server.attach(5)
    for _ in 0..<150 {
      try hostile.submit(CommandSubmission(.time))
      server.turn()
      #expect(try hostile.status() == .done)
    }
    // What it has said to have read is believed no further back than before.
    hostile.memory.set(512, 20)
    hostile.memory.set(128, 150 + 64)
    server.turnUntilQuiet()
    #expect(server.closed()?.reason == .indexJump)
  }

  @Test func moreOnTheWayThanEntriesClosesTheClient() throws {
    let server = try TestServer()
    let hostile = try server.attach(5)
    for _ in 0..<64 { try hostile.submit(CommandSubmission(.time)) }
    server.turnUntilQuiet()
    // It has read nothing, and goes on.
    hostile.memory.set(128, 65)
    server.turn()
    #expect(server.closed()?.reason == .overrun)
  }

  @Test func commandsThatWaitKeepTheirRoom() throws {
    let server = try TestServer()
    server.service.answer = nil
    let hostile = try server.attach(5)
    for _ in 0..<4 { try hostile.submit(.join, text: "a") }
    for _ in 0..<60 { try hostile.submit(CommandSubmission(.time)) }
    server.turnUntilQuiet()
    for slow in server.service.waiting { #expect(server.complete(slow.token, .done) == .delivered) }
    for _ in 0..<64 { #expect(try hostile.status() == .done) }
    #expect(server.closed() == nil)
  }

  @Test func aDoorbellRungWithoutCommandsClosesTheClient() throws {
    let server = try TestServer()
    let hostile = try server.attach(5)
    let polite = try server.attach(6)
    var one: UInt64 = 1
    for _ in 0..<200 where server.server.counters.closed == 0 {
      #expect(server.prepareToSleep())
      send(hostile.doorbell, &one, 8, Int32(MSG_DONTWAIT))
      server.turn()
    }
    #expect(server.closed()?.reason == .needlessRings)
    #expect(hostile.closure == .needlessRings)
    // Nothing more is heard of it.
    #expect(server.prepareToSleep())
    #expect(send(hostile.doorbell, &one, 8, Int32(MSG_DONTWAIT)) == 8)
    #expect(isReadable(server.server.descriptor) == false)
    try polite.submit(CommandSubmission(.time))
    #expect(isReadable(server.server.descriptor))
    #expect(server.turn())
    #expect(try polite.status() == .done)
  }

  @Test func aFullDoorbellHoldsNobody() throws {
    let server = try TestServer()
    let hostile = try server.attach(5)
    // The client lets its own end block and never reads it: the server's calls return all the same.
    _ = linux_fcntl(hostile.doorbell, F_SETFL, 0)
    for round in 0..<5000 as Range<UInt32> {
      hostile.memory.set(768, 1)
      try hostile.submit(CommandSubmission(.time))
      #expect(server.turn(), "\(round)")
      #expect(try hostile.status() == .done)
    }
    #expect(server.closed() == nil)
  }

  @Test func aClosedDoorbellIsNoticed() throws {
    let server = try TestServer()
    let hostile = try server.attach(5)
    #expect(server.prepareToSleep())
    shutdown(hostile.doorbell, Int32(SHUT_RDWR))
    #expect(isReadable(server.server.descriptor))
    server.turn()
    #expect(server.closed()?.reason == .gone)
    #expect(server.prepareToSleep())
    #expect(isReadable(server.server.descriptor) == false)
  }

  @Test func aFlooderDelaysItselfOnly() throws {
    let server = try TestServer()
    let flooder = try server.attach(5)
    let polite = try (6..<15).map { try server.attach(UInt32($0)) }
    var answered = 0
    for _ in 0..<200 {
      while (try? flooder.submit(CommandSubmission(.statistics, .max))) != nil {}
      for client in polite { try client.submit(CommandSubmission(.time)) }
      // One turn is enough for each that has asked once.
      server.turn()
      for client in polite { #expect(try client.status() == .done) }
      while try flooder.status() != nil { answered += 1 }
    }
    #expect(answered == 200 * CommandServer.burst)
    #expect(server.service.served[6] == 200)
  }

  @Test func foreignMemoryIsRefusedAtAttach() throws {
    let memory = try CommandMemory(layout: .standard)
    let raw = try RawMemory(memory.descriptor)
    let other = try #require(CommandLayout(entries: 128))
    #expect(attachError(dup(memory.descriptor), .standard) == nil)
    #expect(attachError(dup(memory.descriptor), other) != nil)
    for (offset, name) in [(0, "magic"), (4, "version"), (8, "entries"), (12, "text")] {
      let before = raw.get(offset)
      raw.set(offset, before + 1)
      #expect(attachError(dup(memory.descriptor), .standard) == .foreign, "\(name)")
      raw.set(offset, before)
    }
    let plain = linux_memfd_create("plain", LINUX_MFD_CLOEXEC)
    ftruncate(plain, CommandLayout.standard.byteCount)
    #expect(attachError(plain, .standard) == .memory(.notSealed))
    #expect(CommandLayout(entries: 63) == nil && CommandLayout(entries: 2048) == nil)
    #expect(CommandLayout(entries: 96) == nil)
  }

  @Test func aBrokenServerIsNotBelieved() throws {
    let server = try TestServer()
    let client = try server.attach(5)
    // A completion of nothing.
    client.memory.set(384, 1)
    #expect(throws: CommandError.brokenServer) { try client.poll() }
    try client.submit(CommandSubmission(.time))
    client.memory.set(384, 66)
    #expect(throws: CommandError.brokenServer) {
      for _ in 0..<100 { _ = try client.poll() }
    }
  }
}

func isReadable(_ descriptor: Int32, milliseconds: Int32 = 0) -> Bool {
  var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  return poll(&entry, 1, milliseconds) == 1
}

private func attachError(_ descriptor: Int32, _ layout: CommandLayout) -> CommandError? {
  do throws(CommandError) {
    _ = try CommandMemory(adopting: descriptor, layout: layout)
    return nil
  } catch {
    return error
  }
}

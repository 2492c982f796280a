import CLinux
import Channel
import Glibc
import Testing

@testable import Commands

/// Whose command it is: what is refused, with which status, and what it leaves alone.
@Suite struct CredentialTests {
  @Test func aGuessIsRefused() throws {
    let server = try TestServer()
    let instance = try server.attach(5)
    instance.client.credential.low ^= 1
    try instance.submit(CommandSubmission(.time))
    instance.client.credential = CredentialID(high: 0, low: 0)
    try instance.submit(CommandSubmission(.time))
    server.turn()
    #expect(try instance.status() == .wrongCredential)
    #expect(try instance.status() == .wrongCredential)
    #expect(server.count(.wrongCredential) == 2 && server.service.served.isEmpty)
    instance.client.credential = instance.credential
    try instance.submit(CommandSubmission(.time))
    server.turn()
    #expect(try instance.status() == .done)
  }

  @Test func aReplayIsRefused() throws {
    let server = try TestServer()
    let instance = try server.attach(5)
    try instance.submit(CommandSubmission(.time))
    try instance.submit(CommandSubmission(.time))
    server.turn()
    // The same entries once more, as if they had been submitted again.
    instance.memory.set(128, 4)
    copyEntry(instance.memory, from: 0, to: 2)
    copyEntry(instance.memory, from: 1, to: 3)
    server.turn()
    for _ in 0..<2 { #expect(try instance.status() == .done) }
    #expect(server.count(.replayed) == 2)
    #expect(server.service.served[5] == 2)
    #expect(completionStatus(instance.memory, 2) == CommandStatus.replayed.rawValue)
    #expect(completionStatus(instance.memory, 3) == CommandStatus.replayed.rawValue)
  }

  @Test func anothersCredentialIsRefusedAndNotHurt() throws {
    let server = try TestServer()
    let owner = try server.attach(5)
    let thief = try server.attach(6)
    thief.client.credential = owner.credential
    // A sequence number that would make all of the owner's replays.
    var command = CommandSubmission(.time)
    command.credential = owner.credential
    for _ in 0..<10 { try thief.submit(command) }
    server.turnUntilQuiet()
    for _ in 0..<10 { #expect(try thief.status() == .foreignCredential) }
    #expect(server.count(.foreignCredential) == 10 && server.service.served.isEmpty)
    try owner.submit(CommandSubmission(.time))
    server.turn()
    #expect(try owner.status() == .done)
  }

  @Test func expiredRevokedAndReplacedOnesAreToldApart() throws {
    let server = try TestServer()
    let expired = try server.attach(5, expiry: monotonic_nanoseconds())
    try expired.submit(CommandSubmission(.time))
    server.turn()
    #expect(try expired.status() == .expiredCredential)

    let revoked = try server.attach(6)
    #expect(server.revoke(revoked.credential))
    #expect(server.revoke(revoked.credential) == false)
    try revoked.submit(CommandSubmission(.time))
    server.turn()
    #expect(try revoked.status() == .revokedCredential)

    let replaced = try server.attach(7)
    let next = try #require(server.replace(replaced.credential))
    try replaced.submit(CommandSubmission(.time))
    replaced.client.credential = next
    try replaced.submit(CommandSubmission(.time))
    server.turn()
    #expect(try replaced.status() == .staleCredential)
    #expect(try replaced.status() == .done)
    #expect(server.replace(replaced.credential) == nil)
  }

  @Test func anEndedInstancesCredentialIsStale() throws {
    let server = try TestServer()
    let first = try server.attach(5)
    #expect(server.remove(5))
    #expect(first.closure == .ended)
    // The slot's next generation.
    let second = try server.attach(5 | 1 << 8)
    second.client.credential = first.credential
    try second.submit(CommandSubmission(.time))
    server.turn()
    #expect(try second.status() == .staleCredential)
    #expect(server.remove(5) == false)
  }

  @Test(arguments: ["revoked", "expired", "replaced"])
  func aCommandIsJudgedAgainWhenItsSlowPartIsOver(_ how: String) throws {
    let server = try TestServer()
    server.service.answer = nil
    let soon = monotonic_nanoseconds() + 2_000_000_000
    let instance = try server.attach(5, expiry: how == "expired" ? soon : .max)
    let first = try instance.submit(.join, text: "a")
    server.turn()
    #expect(server.service.waiting.count == 1)
    let status: CommandStatus
    switch how {
    case "revoked":
      status = .revokedCredential
      #expect(server.revoke(instance.credential))
    case "expired":
      status = .expiredCredential
      while monotonic_nanoseconds() < soon { usleep(1000) }
    default:
      status = .staleCredential
      #expect(server.replace(instance.credential) != nil)
    }
    #expect(server.complete(server.service.waiting[0].token, .done) == .undo(status))
    let completion = try #require(try instance.poll())
    #expect(completion.sequence == first && completion.status == status)
    #expect(server.undone == 1)
  }

  @Test func aCommandOfAnInstanceThatEndedIsUndone() throws {
    let server = try TestServer()
    server.service.answer = nil
    let instance = try server.attach(5)
    try instance.submit(.join, text: "a")
    server.turn()
    let token = server.service.waiting[0].token
    server.remove(5)
    #expect(server.complete(token, .done) == .gone)
    // Nor is it the next one's in the same place.
    let next = try server.attach(5 | 1 << 8)
    try next.submit(.join, text: "b")
    server.turn()
    #expect(server.complete(token, .done) == .gone)
    #expect(try next.status() == nil)
    #expect(server.complete(server.service.waiting[1].token, .done) == .delivered)
    #expect(try next.status() == .done)
  }

  @Test func theCacheIsBoundedAndTheLongestDeadMakesRoom() throws {
    let cache = TestCache(capacity: 4)
    var ids: [CredentialID] = []
    for instance in 0..<4 as Range<UInt32> {
      ids.append(try cache.issue(instance, expiry: 1000, now: 0))
    }
    #expect(cache.isFull(now: 0))
    cache.revoke(ids[2])
    cache.revoke(ids[1])
    ids.append(try cache.issue(4, expiry: 1000, now: 0))
    // The first that died is forgotten, the other is still known as revoked.
    let verdicts = ids.enumerated().map { index, id in
      cache.admit(id, sequence: 1, instance: UInt32(index), now: 1)
    }
    #expect(verdicts == [.done, .revokedCredential, .wrongCredential, .done, .done])
    // What has expired makes room by itself.
    #expect(cache.isFull(now: 2000) == false)
  }

  @Test func manyCredentialsComeAndGo() throws {
    let cache = TestCache(capacity: 64)
    var live: [CredentialID] = []
    var dead: [CredentialID] = []
    for round in 0..<5000 as Range<UInt64> {
      if live.count < 40 || Bool.random(), live.count < 60 {
        live.append(try cache.issue(1, expiry: .max, now: round))
      } else {
        let gone = live.remove(at: Int.random(in: 0..<live.count))
        #expect(cache.revoke(gone))
        dead.append(gone)
      }
      let known = try #require(live.randomElement())
      #expect(cache.admit(known, sequence: round + 1, instance: 1, now: round) == .done)
      if let gone = dead.randomElement() {
        let status = cache.admit(gone, sequence: round + 1, instance: 1, now: round)
        #expect(status == .revokedCredential || status == .wrongCredential)
      }
    }
  }

  @Test func idsAreTextAndBack() throws {
    let id = CredentialID(high: 0x0102_0304_0506_0708, low: 0xf0e0_d0c0_b0a0_9080)
    let bytes = id.bytes
    #expect(bytes == [1, 2, 3, 4, 5, 6, 7, 8, 0xf0, 0xe0, 0xd0, 0xc0, 0xb0, 0xa0, 0x90, 0x80])
    #expect(try #require(CredentialID(bytes: bytes)).isSame(as: id))
    #expect(CredentialID(bytes: Array(bytes.dropLast())) == nil)
  }
}

private func copyEntry(_ memory: RawMemory, from: Int, to: Int) {
  (memory.bytes + 4096 + to * 64).copyMemory(
    from: memory.bytes + 4096 + from * 64, byteCount: 64)
}

private func completionStatus(_ memory: RawMemory, _ index: Int) -> UInt32 {
  memory.get(4096 + 64 * 64 + index * 64)
}

import CLinux
import Channel
import Commands
import Glibc
import Steering
import Testing

@testable import Supervisor

extension ServerTests {
  /// Commands of attached instances, through the supervisor to the driver host and back.
  @Suite struct CommandChannelTests {
    @Test func whatIsAskedForOftenIsAnsweredAtOnce() throws {
      let served = try Served()
      let one = try served.commander("one")
      try one.submit(CommandSubmission(.linkState))
      try one.submit(CommandSubmission(.statistics, .max))
      try one.submit(CommandSubmission(.statistics, 1))
      try one.submit(CommandSubmission(.registerMemory, 1, 2))
      served.serve()
      #expect(LinkState(try one.completion().values) == LinkState(isUp: true, mtu: 1500))
      #expect(InstanceStatistics(try one.completion().values) == InstanceStatistics())
      #expect(try one.status() == .notFound)
      #expect(try one.status() == .notFound)
      served.server.commands.note(ControlMessage("interface link=down mtu=1500"))
      try one.submit(CommandSubmission(.linkState))
      served.serve()
      #expect(LinkState(try one.completion().values).isUp == false)
    }

    @Test func aClaimIsTheHostsToGive() throws {
      let served = try Served()
      served.hostAnswers = false
      let one = try served.commander("one", claims: "ipv4:10.0.0.3")
      try one.submit(.join, "group:224.0.0.251")
      served.serve()
      #expect(try one.status() == nil)
      #expect(served.path.news("claim").last?["claim"] == "group:224.0.0.251")
      served.answer("claimed", one)
      #expect(try one.status() == .done)
      #expect(Set(one.claims(served)) == ["ipv4:10.0.0.3", "group:224.0.0.251"])
      // The host knows of something that the supervisor does not.
      try one.submit(.join, "ipv4:10.0.0.4")
      served.serve()
      served.answer("refused", one, "what=claim reason=conflict")
      #expect(try one.status() == .conflict)
      try one.submit(.leave, "group:224.0.0.251")
      served.serve()
      #expect(served.path.news("unclaim").last?["claim"] == "group:224.0.0.251")
      served.answer("unclaimed", one)
      #expect(try one.status() == .done)
      #expect(one.claims(served) == ["ipv4:10.0.0.3"])
    }

    @Test func policyAndOtherInstancesHold() throws {
      let served = try Served()
      let one = try served.commander("one", claims: "ipv4:10.0.0.3")
      let two = try served.commander("two", claims: "ipv4:10.0.0.4")
      for claim in [
        "ipv4:10.0.0.4", "ipv4:10.0.0.3", "nonsense", String(repeating: "x", count: 200),
      ] { try one.submit(.join, claim) }
      try one.submit(.leave, "ipv4:10.0.0.4")
      served.serve()
      #expect(try one.status() == .conflict)
      #expect(try one.status() == .conflict)
      #expect(try one.status() == .malformed)
      #expect(try one.status() == .malformed)
      #expect(try one.status() == .notFound)
      #expect(one.claims(served) == ["ipv4:10.0.0.3"] && two.claims(served) == ["ipv4:10.0.0.4"])
    }

    @Test func aClaimWhoseCredentialIsRevokedMeanwhileIsGivenBack() throws {
      let served = try Served()
      served.hostAnswers = false
      let one = try served.commander("one", claims: "ipv4:10.0.0.3")
      try one.submit(.join, "ipv4:10.0.0.9")
      try one.submit(.leave, "ipv4:10.0.0.3")
      served.serve()
      let administrator = served.peer()
      administrator.say("revoke id=\(one.id)")
      served.step()
      #expect(served.count("credentials_revoked") == 1)
      _ = served.path.news("claim")
      served.answer("claimed", one)
      served.answer("unclaimed", one)
      #expect(try one.status() == .revokedCredential)
      #expect(try one.status() == .revokedCredential)
      // All as before: what was claimed is given back, what was given up is claimed again.
      #expect(served.path.news("unclaim").map { $0["claim"] }.last == "ipv4:10.0.0.9")
      #expect(served.path.news("claim").map { $0["claim"] } == ["ipv4:10.0.0.3"])
      served.answer("unclaimed", one)
      served.answer("claimed", one)
      #expect(one.claims(served) == ["ipv4:10.0.0.3"])
      try one.submit(CommandSubmission(.time))
      served.serve()
      #expect(try one.status() == .revokedCredential)
    }

    @Test func oneThatEndsWithCommandsOnTheWayLeavesNothing() throws {
      let served = try Served()
      served.hostAnswers = false
      let before = served.descriptors()
      do {
        let one = try served.commander("one", claims: "ipv4:10.0.0.3")
        try one.submit(.join, "ipv4:10.0.0.9")
        served.serve()
        one.peer.leave()
        served.step()
        served.answer("claimed", one)
        served.answer("detached", one)
      }
      served.step()
      #expect(served.server.records.isEmpty && served.descriptors() == before)
      // Its slot's next instance has commands of its own.
      served.hostAnswers = true
      let next = try served.commander("next", claims: "ipv4:10.0.0.9")
      #expect(next.id & 255 == 0)
      try next.submit(CommandSubmission(.time))
      served.serve()
      #expect(try next.status() == .done)
    }

    @Test func whoBreaksTheRulesIsClosedAndWhoGoesWithoutIsNot() throws {
      let served = try Served()
      let hostile = try served.commander("hostile", claims: "ipv4:10.0.0.3")
      let quiet = try served.commander("quiet", claims: "ipv4:10.0.0.4")
      let polite = try served.commander("polite", claims: "ipv4:10.0.0.5")
      hostile.setSubmissionIndex(5000)
      #expect(served.server.commands.prepareToSleep() == false)
      quiet.closeDoorbell()
      try polite.submit(CommandSubmission(.time))
      served.serve()
      served.serve()
      #expect(served.count("instances_closed_by_command_server") == 1)
      #expect(hostile.peer.next()?["reason"] == "an_index_of_a_command_ring_jumped")
      #expect(try polite.status() == .done)
      served.step()
      #expect(served.server.records.map(\.name) == ["quiet", "polite"])
    }
  }
}

/// An attached process with its command channel.
final class Commander {
  let peer: Peer
  let id: UInt32
  private var client: CommandClient
  private let memory: UnsafeMutableRawPointer
  private let doorbell: Int32

  init(_ peer: Peer, _ welcome: Welcome, _ descriptors: [Int32]) throws {
    self.peer = peer
    id = welcome.id
    let place = try #require(welcome.position(of: .commands))
    let bell = try #require(welcome.position(of: .commandDoorbell))
    memory = try #require(
      linux_mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptors[place], 0))
    let commands = try CommandMemory(adopting: descriptors[place])
    let credential = try #require(CredentialID(bytes: welcome.credential))
    doorbell = descriptors[bell]
    client = CommandClient(
      commands, doorbell: CommandDoorbell(adopting: doorbell), credential: credential)
    for (index, descriptor) in descriptors.enumerated() where index != place && index != bell {
      close(descriptor)
    }
  }

  deinit { munmap(memory, 4096) }

  func submit(_ command: CommandSubmission) throws { _ = try client.submit(command) }
  func submit(_ number: CommandNumber, _ text: String) throws {
    _ = try client.submit(number, text: text)
  }
  func completion() throws -> CommandCompletion {
    let completion = try client.poll()
    return try #require(completion)
  }
  func status() throws -> CommandStatus? { try client.poll()?.status }
  func setSubmissionIndex(_ index: UInt32) { release_store32(memory + 128, index) }
  func closeDoorbell() { shutdown(doorbell, Int32(SHUT_RDWR)) }
  func claims(_ served: Served) -> [String] {
    served.server.instance(id)?.record.claims.map(\.description) ?? []
  }
}

extension Served {
  /// A process that has attached and runs, whatever the host does later.
  func commander(_ name: String, claims: String? = nil) throws -> Commander {
    let before = hostAnswers
    hostAnswers = true
    defer { hostAnswers = before }
    let peer = peer()
    peer.say("attach version=2 name=\(name)" + (claims.map { " claims=\($0)" } ?? ""))
    step()
    let (welcome, descriptors) = try peer.welcomeAndDescriptors()
    peer.say("ready")
    step()
    return try Commander(peer, welcome, descriptors)
  }

  func serve() {
    _ = server.serveCommands(at: now)
    _ = server.commands.prepareToSleep()
    _ = server.serveCommands(at: now)
  }

  /// The driver host says something of an instance.
  func answer(_ word: String, _ one: Commander, _ rest: String = "") {
    _ = server.hear(host: ControlMessage("\(word) id=\(one.id) \(rest)"), at: now)
  }
}

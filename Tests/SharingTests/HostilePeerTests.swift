import CLinux
import Channel
import Glibc
import Testing

@testable import Supervisor

extension ServerTests {
  /// Peers that break the rules, and hosts that do: only the offender ends, and all of its own comes back.
  @Suite struct HostilePeerTests {
    @Test func whoSaysNothingIsClosedInTime() throws {
      let served = try Served()
      let before = served.descriptors()
      let peer = served.peer()
      served.step()
      served.step(after: SharingServer.handshakeLimit - 1)
      #expect(!peer.isClosed && served.server.connections.count == 1)
      served.step(after: 1)
      #expect(peer.refusal() == "timeout" && peer.isClosed)
      #expect(served.count("refused_timeout") == 1)
      peer.leave()
      #expect(served.descriptors() == before)
    }

    @Test func whoIsNeverReadyIsClosedInTime() throws {
      let served = try Served()
      let before = served.descriptors()
      let peer = served.peer()
      peer.say("attach version=2 name=one")
      served.step()
      _ = try peer.welcome()
      served.step(after: SharingServer.readyLimit)
      #expect(peer.next()?.word == "closed" && peer.isClosed)
      peer.leave()
      #expect(served.server.records.isEmpty && served.path.maps.isEmpty)
      #expect(served.descriptors() == before)
    }

    @Test func descriptorsThatNobodyAskedForAreClosed() throws {
      let served = try Served()
      let before = served.descriptors()
      let peer = served.peer()
      let memory = linux_memfd_create("martlet-instance-of-a-stranger", 0)
      defer { close(memory) }
      peer.say("attach version=2 name=one", [memory, memory, memory])
      served.step()
      #expect(peer.refusal() == "descriptors")
      let second = try served.attached()
      second.say("ready", [memory])
      served.step()
      #expect(second.next()?["reason"] == "descriptors:")
      #expect(served.count("offences_descriptors") == 1 && served.server.records.isEmpty)
      #expect(served.descriptors() == before + 1)
    }

    @Test func aFloodOfConnectionsIsBounded() throws {
      let served = try Served()
      let before = served.descriptors()
      let good = try served.attached("good")
      var peers = (0..<60).map { _ in served.peer() }
      // Said before anybody listens, and never read: the reason is heard all the same.
      for peer in peers { peer.say("stats") }
      served.step()
      served.step()
      #expect(served.server.connections.count == 16)
      #expect(served.count("refused_connections") == 45)
      #expect(peers.last?.refusal() == "connections")
      #expect(served.server.records.count == 1)
      peers.removeAll()
      served.step()
      #expect(served.server.connections.count == 1)
      good.leave()
      served.step()
      #expect(served.descriptors() == before)
    }

    @Test func aFloodOfWordsEndsItsSpeaker() throws {
      let served = try Served()
      let good = try served.attached("good")
      let peer = served.peer()
      // More than an administrator may say in a second.
      for _ in 0..<100 {
        for _ in 0..<16 { peer.say("stats") }
        served.step()
      }
      #expect(served.count("refused_flood") == 1)
      let loud = try served.attached("loud")
      loud.say("ready")
      served.step()
      #expect(loud.next()?.word == "closed" && served.count("offences_message") == 1)
      #expect(served.server.records.map(\.name) == ["good"])
      _ = good
    }

    /// The process ends after so many of its steps.
    @Test(arguments: 0...4)
    func whoDiesAtAnyInstantLeavesNothing(instant: Int) throws {
      let served = try Served()
      let before = served.descriptors()
      served.hostAnswers = false
      let peer = served.peer()
      if instant >= 1 {
        peer.say("attach version=2 name=one claims=ipv4:10.0.0.3")
        if instant >= 2 { served.step() }
      }
      if instant >= 3 {
        served.hostAnswers = true
        served.step()
      }
      if instant >= 4 { peer.say("ready") }
      peer.leave()
      served.hostAnswers = true
      served.step()
      served.step()
      #expect(served.server.records.isEmpty && served.path.maps.isEmpty)
      #expect(served.server.connections.isEmpty && served.server.window.reservedBytes == 0)
      #expect(served.descriptors() == before)
    }

    @Test func aRuleBreakerHearsTheHostsReason() throws {
      let served = try Served()
      let peer = try served.attached()
      let good = try served.attached("good")
      _ = served.server.hear(
        host: ControlMessage("closed id=256 reason=index_jump"), at: served.now)
      served.step()
      let message = try #require(peer.next())
      #expect(message.word == "closed" && message["reason"] == "index_jump")
      #expect(served.count("instances_closed_by_host") == 1)
      #expect(served.server.records.map(\.name) == ["good"])
      _ = good
    }

    @Test func aHostThatRefusesIsPassedOn() throws {
      let served = try Served()
      served.hostAnswers = false
      let peer = served.peer()
      peer.say("attach version=2 name=one")
      served.step()
      let id = try #require(served.path.news("attach").first?["id"])
      for answer in [
        "refused id=\(id) what=attach reason=no", "refused id=\(id) what=detach reason=x",
      ] {
        _ = served.server.hear(host: ControlMessage(answer), at: served.now)
      }
      #expect(peer.refusal() == "host")
      #expect(served.server.records.isEmpty && served.path.maps.isEmpty)
    }

    @Test func aHostThatNeverLetsGoKeepsTheMemoryAndNothingElse() throws {
      let served = try Served()
      let peer = try served.attached("a", claims: "ipv4:10.0.0.3")
      served.hostAnswers = false
      peer.leave()
      served.step()
      served.step(after: SharingServer.hostLimit)
      #expect(served.server.instances[0]?.state == .stuck)
      #expect(served.count("detach_timeouts") == 1)
      // Neither its claim nor its place is given to another while the device may still use its memory.
      let second = served.peer()
      second.say("attach version=2 name=b claims=ipv4:10.0.0.3")
      served.step()
      #expect(second.refusal() == "claim")
      #expect(served.path.maps.count == 1)
      served.hostAnswers = true
      served.step()
      #expect(served.server.records.isEmpty && served.path.maps.isEmpty)
    }

    @Test func aDeviceThatIsToldByTheHostIsWaitedFor() throws {
      let served = try Served()
      served.path.hasRelay = true
      let peer = try served.attached()
      peer.leave()
      served.step()
      #expect(served.server.instances[0]?.state == .unmapping)
      _ = served.server.hear(host: ControlMessage("unmapped id=256"), at: served.now)
      #expect(served.server.records.isEmpty)
    }

    @Test func memoryThatIsUnmappedLateIsLetGoOfThen() throws {
      let served = try Served()
      served.path.hasRelay = true
      let peer = try served.attached()
      peer.leave()
      served.step()
      served.step(after: SharingServer.hostLimit)
      #expect(served.server.instances[0]?.state == .stuck)
      _ = served.server.hear(host: ControlMessage("unmapped id=256"), at: served.now)
      #expect(served.server.records.isEmpty)
    }

    @Test func whoWaitsForAnothersClaimInVainHearsSo() throws {
      let served = try Served()
      let peer = try served.attached("a", claims: "ipv4:10.0.0.3")
      served.hostAnswers = false
      peer.leave()
      served.step()
      let second = served.peer()
      second.say("attach version=2 name=b claims=ipv4:10.0.0.3")
      served.step()
      served.step(after: SharingServer.handshakeLimit)
      #expect(second.next()?.rest.contains("another instance has not let go") == true)
    }

    @Test func closingEndsAll() throws {
      let served = try Served()
      let before = served.descriptors()
      do {
        let peers = try (0..<3).map { try served.attached("i\($0)") }
        served.server.close()
        #expect(peers.allSatisfy { $0.next()?.word == "stop" })
        let late = served.peer()
        served.step()
        #expect(late.next() == nil && served.server.records.count == 3)
        served.server.leaveAll("the run ends", at: served.now)
        served.step()
        #expect(served.server.records.isEmpty)
      }
      served.step()
      #expect(served.descriptors() == before)
    }
  }
}

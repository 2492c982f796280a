import Channel
import Glibc
import Steering
import Testing

@testable import Supervisor

extension ServerTests {
  @Suite struct AttachTests {
    @Test func aProcessBecomesAnInstanceAndLeavesNothing() throws {
      let served = try Served()
      let before = served.descriptors()
      do {
        let peer = served.peer()
        peer.say("attach version=2 name=one claims=ipv4:10.0.0.3,group:224.0.0.251 memory=32")
        served.step()
        let welcome = try peer.welcome()
        #expect(welcome.use == .shared && welcome.queues == 2 && welcome.channel.slots == 4096)
        #expect(welcome.arenaBytes == 16 << 20 && welcome.maximumBytes == 32 << 20)
        #expect(welcome.receiveBytes == 4 << 20 && welcome.credential.count == 16)
        #expect(welcome.id == 0x100)
        let record = try #require(served.server.records.first)
        #expect(record.pid == getpid() && record.uid == getuid() && record.name == "one")
        #expect(record.credential.bytes == welcome.credential && welcome.hasCommands)
        #expect(served.server.instances[0]?.state == .welcomed)
        peer.say("ready")
        served.step()
        #expect(served.server.instances[0]?.state == .running)
        #expect(served.path.maps == [Served.windowIOVA + (8 << 20): 16 << 20])
      }
      served.step()
      #expect(served.server.records.isEmpty && served.path.maps.isEmpty)
      #expect(served.server.window.reservedBytes == 0)
      #expect(served.path.toldBeforeMapped == 0)
      #expect(served.count("instances_attached") == 1 && served.count("instances_detached") == 1)
      #expect(served.descriptors() == before)
    }

    @Test func aSlotThatIsUsedAgainHasAnotherGeneration() throws {
      let served = try Served()
      let first = try served.attached()
      let old = try #require(served.server.records.first?.id)
      first.leave()
      served.step()
      let second = try served.attached()
      #expect(served.server.records.first?.id == old + 0x100)
      // What the host says of the one before is of nobody.
      _ = served.server.hear(host: ControlMessage("closed id=\(old) reason=index_jump"), at: 0)
      _ = served.server.hear(host: ControlMessage("closed id=4294967295 reason=x"), at: 0)
      served.step()
      #expect(served.server.records.count == 1 && served.count("host_stale_messages") == 2)
      #expect(second.next() == nil)
    }

    @Test(arguments: [
      ("attach version=1 name=one", "version"), ("attach name=one", "version"),
      ("attach version=2", "request"), ("attach version=2 name=a/b", "request"),
      ("attach version=2 name=one claims=ipv4:10.0.0.300", "request"),
      ("attach version=2 name=one memory=0", "request"),
      ("attach version=2 name=one memory=66", "memory"),
      ("attach version=2 name=one memory=1", "memory"), ("hello", "message"), ("ready", "message"),
      (String(repeating: "x", count: 16384), "message"),
    ])
    func aRequestThatMakesNoSenseIsRefused(text: String, reason: String) throws {
      let served = try Served()
      let before = served.descriptors()
      let peer = served.peer()
      peer.say(text)
      served.step()
      #expect(peer.refusal() == reason)
      #expect(peer.isClosed)
      #expect(served.count("refused_\(reason)") == 1)
      peer.leave()
      #expect(served.descriptors() == before && served.server.records.isEmpty)
    }

    @Test func thePolicyDecides() throws {
      let policy = try Policy(
        text: """
          [socket]
          users = [\(getuid())]
          [[instance]]
          name = "foreign"
          users = [\(getuid() + 1)]
          [[instance]]
          name = "secret"
          token-sha256 = "\(Hexadecimal.text(TokenDigest.of([7, 7])))"
          claims = ["ipv4:10.0.0.3/tcp/80"]
          """)
      let served = try Served(policy)
      for (request, reason) in [
        ("name=other", "name"), ("name=foreign", "user"), ("name=secret", "token"),
        ("name=secret token=0708", "token"),
        ("name=secret token=0707 claims=ipv4:10.0.0.3", "claim"),
        ("name=secret token=0707 claims=ipv4:10.0.0.3/tcp/80,rest", "claim"),
      ] {
        let peer = served.peer()
        peer.say("attach version=2 \(request)")
        served.step()
        #expect(peer.refusal() == reason, "\(request)")
      }
      let peer = served.peer()
      peer.say("attach version=2 name=secret token=0707 claims=ipv4:10.0.0.3/tcp/80")
      served.step()
      #expect(try peer.welcome().claims == [Claim("ipv4:10.0.0.3/tcp/80")])
    }

    @Test func aClaimIsOneInstancesUntilItHasGone() throws {
      let served = try Served()
      let first = try served.attached("a", claims: "ipv4:10.0.0.3,rest")
      for claims in ["ipv4:10.0.0.3", "rest"] {
        let peer = served.peer()
        peer.say("attach version=2 name=b claims=\(claims)")
        served.step()
        #expect(peer.refusal() == "claim")
      }
      let other = try served.attached("c", claims: "ipv4:10.0.0.3/tcp/80")
      // Who asks while the one before is on its way out waits for that.
      served.hostAnswers = false
      first.leave()
      served.step()
      let heir = served.peer()
      heir.say("attach version=2 name=d claims=ipv4:10.0.0.3")
      served.step()
      #expect(heir.next() == nil && served.server.waiting.count == 1)
      served.hostAnswers = true
      served.step()
      #expect(try heir.welcome().claims == [Claim("ipv4:10.0.0.3")])
      #expect(served.server.waiting.isEmpty && served.server.records.count == 2)
      _ = other
    }

    @Test func thereAreSixtyFourInstances() throws {
      var policy = Policy.usual()
      policy.connectionsPerUser = 100
      policy.unnamed?.guaranteedBytes = 4 << 20
      policy.unnamed?.maximumBytes = 8 << 20
      policy.unnamed?.slots = 256
      let served = try Served(policy)
      var peers = try (0..<64).map { try served.attached("i\($0)") }
      #expect(Set(served.server.records.map(\.id)).count == 64)
      let last = served.peer()
      last.say("attach version=2 name=more")
      served.step()
      #expect(last.refusal() == "instances")
      peers.removeFirst()
      served.step()
      peers.append(try served.attached("more"))
      #expect(served.server.records.count == 64)
      peers.removeAll()
      served.step()
      #expect(served.server.records.isEmpty && served.path.maps.isEmpty)
    }

    @Test func administratorsAskOverTheSameSocket() throws {
      let served = try Served()
      served.server.counters = { [("rx_i0_segments_instance", 5)] }
      let peer = try served.attached("a", claims: "ipv4:10.0.0.3")
      let administrator = served.peer()
      administrator.say("stats")
      served.step()
      #expect(administrator.next()?["rx_i0_segments_instance"] == "5")
      #expect(administrator.next()?.word == "end")
      administrator.say("memory")
      served.step()
      let line = try #require(administrator.next())
      #expect(line["now"] == "\(16 << 20)" && line["segments-instance"] == "5")
      #expect(administrator.next()?["bytes"] == "\(16 << 20)")
      #expect(administrator.next()?.word == "budget")
      #expect(administrator.next()?.word == "host")
      #expect(administrator.next()?.word == "end")
      administrator.say("close id=1")
      served.step()
      #expect(administrator.next()?.word == "unknown")
      administrator.say("close id=256")
      served.step()
      #expect(administrator.next()?.word == "end")
      #expect(peer.next()?.word == "closed")
      #expect(served.server.records.isEmpty)
    }

    @Test func othersAreNoAdministrators() throws {
      var policy = Policy.usual()
      policy.administrators = []
      let served = try Served(policy)
      for word in ["stats", "memory", "close id=256"] {
        let peer = served.peer()
        peer.say(word)
        served.step()
        #expect(peer.refusal() == "administrator")
      }
      #expect(served.count("refused_administrator") == 3)
    }
  }
}

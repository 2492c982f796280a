import Channel
import Testing

@testable import Supervisor

extension ServerTests {
  /// What another driver host is told of those that the one before had.
  @Suite struct HostRestartTests {
    /// One claims an address, another a port of it: the first must not get the other's packets because it is told of first.
    @Test func allClaimsComeBeforeAnyInstanceGoesOn() throws {
      let served = try Served()
      let one = try served.attached("one", claims: "ipv4:10.0.0.3")
      let two = try served.attached("two", claims: "ipv4:10.0.0.3/udp/53")
      let three = served.peer()
      served.hostAnswers = false
      three.say("attach version=2 name=three claims=ipv4:10.0.0.3/tcp/80")
      served.step()
      #expect(served.server.instances[2]?.state == .announced)
      served.path.heard = []
      served.server.noteHostGone(at: served.now)
      served.server.restore(at: served.now)
      let words = served.path.heard.map(\.word)
      #expect(
        words == ["attach", "claim", "attach", "claim", "attach", "claim", "resume", "resume"])
      let resumed = served.path.heard.filter { $0["resume"] == "yes" }
      #expect(resumed.compactMap { $0["id"] } == served.server.records.prefix(2).map { "\($0.id)" })
      #expect(one.next()?.word == "restarted" && two.next()?.word == "restarted")
      #expect(one.next() == nil && three.next() == nil)
    }

    /// What the next host refuses of an instance that runs is the end of that one only.
    /// One that went on without its map would have the device read what lay there before.
    @Test(arguments: ["attach", "claim", "map"])
    func oneThatCannotGoOnIsClosed(what: String) throws {
      let served = try Served()
      let one = try served.attached("one")
      let two = try served.attached("two")
      let id = try #require(served.server.records.first?.id)
      served.hostAnswers = false
      served.server.noteHostGone(at: served.now)
      served.server.restore(at: served.now)
      _ = served.server.hear(
        host: ControlMessage("refused id=\(id) what=\(what) reason=no"), at: served.now)
      served.step()
      #expect(served.count("instances_not_resumed") == 1)
      #expect(one.next()?.word == "restarted" && one.next()?.word == "closed")
      #expect(two.next()?.word == "restarted" && two.next() == nil)
    }
  }
}

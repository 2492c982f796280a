import Channel
import Glibc
import Memory
import Testing

@testable import Supervisor

extension ServerTests {
  @Suite struct MemoryMoveTests {
    static let mebibyte: UInt64 = 1 << 20

    func served(_ memory: String = "") throws -> Served {
      try Served(
        Policy(
          text: """
            [memory]
            pressure = "off"
            \(memory)
            [default]
            claims = ["any"]
            memory = 16
            maximum-memory = 128
            """))
    }

    func grow(_ served: Served, _ instance: AttachedInstance, _ mebibytes: UInt64) {
      served.server.grow(
        instance, by: mebibytes * Self.mebibyte, asker: .nobody, at: served.now)
      served.step()
    }

    func shrink(_ served: Served, _ instance: AttachedInstance, to mebibytes: Int) {
      served.server.shrink(instance, to: mebibytes << 20, asker: .nobody, at: served.now)
      served.step()
    }

    @Test func extentsComeBehindWhatThereIsAndGoFromTheEnd() throws {
      let served = try served()
      let before = served.descriptors()
      let peer = try served.attached()
      do {
        let instance = try #require(served.server.instances[0])
        grow(served, instance, 70)
        // 32, 32 and 6: each is readable for the device before the host hears of it.
        #expect(instance.record.arenaBytes == 86 << 20 && instance.move == nil)
        #expect(instance.extents.map(\.byteCount) == [32 << 20, 32 << 20, 6 << 20])
        #expect(served.path.toldBeforeMapped == 0 && served.path.maps.count == 4)
        var offset = 16 << 20
        for extent in instance.extents {
          let message = try #require(peer.next())
          #expect(message.word == "extent" && message.number("offset") == offset)
          #expect(message.number("bytes") == extent.byteCount)
          offset += extent.byteCount
        }
        // More than the maximum is refused as a whole.
        grow(served, instance, 44)
        #expect(instance.record.arenaBytes == 86 << 20)
        // Down to 20 MiB: whole extents only, so 48 stay.
        shrink(served, instance, to: 20)
        let asked = try #require(peer.next())
        #expect(asked.word == "shrink" && asked.number("bytes") == 48 << 20)
        #expect(instance.record.arenaBytes == 86 << 20)
        peer.say("shrunk bytes=\(48 << 20)")
        served.step()
        #expect(instance.record.arenaBytes == 48 << 20 && instance.move == nil)
        #expect(served.path.maps.count == 2)
        shrink(served, instance, to: 0)
        #expect(peer.next()?.number("bytes") == 16 << 20)
        peer.say("shrunk bytes=\(16 << 20)")
        served.step()
        #expect(instance.record.arenaBytes == 16 << 20 && instance.extents.isEmpty)
        grow(served, instance, 2)
      }
      peer.leave()
      served.step()
      #expect(served.server.records.isEmpty && served.path.maps.isEmpty)
      #expect(served.descriptors() == before)
    }

    @Test func theDeviceMayBeToldByTheHost() throws {
      let served = try served()
      served.path.hasRelay = true
      let peer = try served.attached()
      let instance = try #require(served.server.instances[0])
      let id = instance.record.id
      grow(served, instance, 40)
      while peer.next() != nil {}
      shrink(served, instance, to: 16)
      peer.say("shrunk bytes=\(16 << 20)")
      served.step()
      // The pages are nobody else's before the device has let go of both extents.
      #expect(instance.extents.count == 2 && instance.missingUnmaps == 2)
      _ = served.server.hear(host: ControlMessage("unmapped id=\(id)"), at: served.now)
      #expect(instance.extents.count == 2 && instance.record.arenaBytes == 56 << 20)
      _ = served.server.hear(host: ControlMessage("unmapped id=\(id)"), at: served.now)
      #expect(instance.extents.isEmpty && instance.record.arenaBytes == 16 << 20)
      // A map that fails comes back, and the instance never hears of it.
      while peer.next() != nil {}
      served.hostAnswers = false
      served.server.grow(instance, by: 2 << 20, asker: .nobody, at: served.now)
      for word in ["refused id=\(id) what=map reason=no", "extended id=\(id)", "shrunk id=\(id)"] {
        _ = served.server.hear(host: ControlMessage(word), at: served.now)
      }
      #expect(instance.move == nil && instance.extents.isEmpty && peer.next() == nil)
      #expect(instance.record.arenaBytes == 16 << 20)
      // No other connection of the device is told of it.
      #expect(served.path.maps.count == 1)
    }

    /// A page that goes to another instance is zero, and who keeps a mapping of what he has given up finds zeros there.
    @Test func whatOneHasWrittenNobodyElseReads() throws {
      let served = try served("budget = 80")
      let (one, two) = (try served.attached("one"), try served.attached("two"))
      let first = try #require(served.server.instances[0])
      let second = try #require(served.server.instances[1])
      let canary: UInt64 = 0x5a5a_1234_dead_beef
      grow(served, first, 32)
      let (message, descriptors) = try #require(one.nextWithDescriptors())
      #expect(message.word == "extent" && descriptors.count == 1)
      // A hostile one keeps the descriptor and the mapping.
      let kept = try Arena(adopting: descriptors[0], byteCount: 32 << 20)
      kept.address.bindMemory(to: UInt64.self, capacity: 4 << 20).update(
        repeating: canary, count: 4 << 20)
      let blocks = blocks(kept.descriptor)
      #expect(blocks >= 32 << 20)
      // The budget is used up: the second waits for the first, which has been idle.
      served.now += 6000
      served.server.grow(second, by: 32 << 20, asker: .nobody, at: served.now)
      served.step()
      #expect(one.next()?.word == "shrink" && two.next() == nil)
      #expect(second.move?.isWaiting == true)
      one.say("shrunk bytes=\(16 << 20)")
      served.step()
      // Freed, in spite of the descriptor and the mapping: there is not a page behind them.
      #expect(self.blocks(kept.descriptor) == 0)
      #expect(kept.address.load(as: UInt64.self) == 0)
      let (given, memory) = try #require(two.nextWithDescriptors())
      #expect(given.number("offset") == 16 << 20)
      let arena = try Arena(adopting: memory[0], byteCount: 32 << 20)
      let words = UnsafeRawBufferPointer(start: arena.address, count: 32 << 20)
      #expect(words.bindMemory(to: UInt64.self).allSatisfy { $0 == 0 })
      // What the first writes into its old mapping does not reach the second either.
      kept.address.storeBytes(of: canary, as: UInt64.self)
      #expect(arena.address.load(as: UInt64.self) == 0)
      #expect(first.record.arenaBytes == 16 << 20 && second.record.arenaBytes == 48 << 20)
      // And it comes back when the second has become idle.
      served.now += 6000
      served.server.grow(first, by: 32 << 20, asker: .nobody, at: served.now)
      served.step()
      #expect(two.next()?.word == "shrink")
      two.say("shrunk bytes=\(16 << 20)")
      served.step()
      #expect(first.record.arenaBytes == 48 << 20 && second.record.arenaBytes == 16 << 20)
    }

    /// Bytes of pages that a file has.
    private func blocks(_ descriptor: Int32) -> Int {
      var status = stat()
      fstat(descriptor, &status)
      return Int(status.st_blocks) * 512
    }

    @Test func aBusyInstanceKeepsItsMemory() throws {
      let served = try served("budget = 64")
      let (one, two) = (try served.attached("one"), try served.attached("two"))
      let first = try #require(served.server.instances[0])
      let second = try #require(served.server.instances[1])
      grow(served, first, 32)
      served.now += 6000
      var packets: UInt64 = 0
      served.server.traffic = { slot in
        packets += 1
        return slot == 0 ? packets : 0
      }
      served.step(after: 300)
      grow(served, second, 2)
      #expect(second.record.arenaBytes == 16 << 20 && second.move == nil)
      while let message = one.next() { #expect(message.word == "extent") }
      #expect(two.next() == nil)
    }

    @Test func whoDoesNotLetGoIsClosedWhereMemoryIsNeededAndElseLeft() throws {
      let served = try served("budget = 64\nlet-go-milliseconds = 500")
      let (one, two) = (try served.attached("one"), try served.attached("two"))
      let first = try #require(served.server.instances[0])
      grow(served, first, 32)
      shrink(served, first, to: 16)
      served.step(after: 500)
      // The last call, which is not answered either.
      served.step(after: 500)
      #expect(first.move == nil && served.count("memory_not_let_go") == 1)
      #expect(first.state == .running && first.record.arenaBytes == 48 << 20)
      let words = (0..<3).compactMap { _ in one.next() }
      #expect(words.map(\.word) == ["extent", "shrink", "shrink"])
      #expect(words.last?.number("bytes") == 48 << 20)
      // Late answers count.
      one.say("shrunk bytes=\(16 << 20)")
      one.say("shrunk bytes=\(16 << 20)")
      served.step()
      #expect(first.record.arenaBytes == 16 << 20 && first.answersDue == 0)
      grow(served, first, 32)
      served.now += 6000
      let second = try #require(served.server.instances[1])
      served.server.grow(second, by: 32 << 20, asker: .nobody, at: served.now)
      served.step()
      served.step(after: 500)
      #expect(served.count("instances_closed_for_memory") == 1)
      #expect(second.record.arenaBytes == 48 << 20)
      #expect(served.server.records.map(\.name) == ["two"])
      #expect(two.next()?.word == "extent")
      var last: ControlMessage?
      while let message = one.next() { last = message }
      #expect(last?.word == "closed" && last?.rest.contains("memory") == true)
    }

    @Test(arguments: [
      "shrunk", "shrunk bytes=0", "shrunk bytes=16777215", "shrunk bytes=20971520",
      "shrunk bytes=999999999999",
    ])
    func anAnswerThatCannotBeEndsTheInstance(answer: String) throws {
      let served = try served()
      let peer = try served.attached()
      let instance = try #require(served.server.instances[0])
      grow(served, instance, 40)
      shrink(served, instance, to: 16)
      peer.say(answer)
      served.step()
      #expect(served.server.records.isEmpty && served.path.maps.isEmpty)
      #expect(served.count("offences_message") == 1)
    }

    @Test func anAnswerToNothingEndsTheInstance() throws {
      let served = try served()
      let peer = try served.attached()
      peer.say("shrunk bytes=\(16 << 20)")
      served.step()
      #expect(served.server.records.isEmpty)
    }

    @Test func whoLeavesWhileMemoryMovesLeavesNothing() throws {
      for stage in 0..<4 {
        let served = try served()
        let before = served.descriptors()
        let peer = try served.attached()
        do {
          let instance = try #require(served.server.instances[0])
          grow(served, instance, 40)
          served.hostAnswers = false
          switch stage {
          case 0: served.server.grow(instance, by: 2 << 20, asker: .nobody, at: served.now)
          case 1: shrink(served, instance, to: 16)
          default:
            shrink(served, instance, to: 16)
            peer.say("shrunk bytes=\(16 << 20)")
            served.step()
          }
          if stage == 3 { instance.connection?.say("x") }
        }
        peer.leave()
        served.hostAnswers = true
        served.step()
        #expect(served.server.records.isEmpty && served.path.maps.isEmpty)
        #expect(served.descriptors() == before)
      }
    }

    @Test func pressureTakesWhatIsAboveTheGuarantees() throws {
      let served = try served()
      let (one, two) = (try served.attached("one"), try served.attached("two"))
      let first = try #require(served.server.instances[0])
      grow(served, first, 40)
      while one.next() != nil {}
      served.server.notePressure(at: served.now)
      served.step()
      #expect(one.next()?.number("bytes") == 16 << 20 && two.next() == nil)
      // It gives what it can: one extent is still in use.
      served.step(after: 2000)
      #expect(one.next()?.number("bytes") == 56 << 20)
      one.say("shrunk bytes=\(48 << 20)")
      one.say("shrunk bytes=\(48 << 20)")
      served.step()
      #expect(first.record.arenaBytes == 48 << 20 && first.state == .running)
      #expect(served.count("memory_pressure_events") == 1)
    }

    @Test func aNewInstanceGetsItsGuaranteeFromTheOthers() throws {
      let served = try served("budget = 48")
      let one = try served.attached("one")
      let first = try #require(served.server.instances[0])
      grow(served, first, 32)
      while one.next() != nil {}
      let new = served.peer()
      new.say("attach version=2 name=two")
      served.step()
      #expect(new.next() == nil && one.next()?.number("bytes") == 16 << 20)
      one.say("shrunk bytes=\(16 << 20)")
      served.step()
      #expect(try new.welcome().arenaBytes == 16 << 20)
      let third = try served.attached("three")
      let fourth = served.peer()
      fourth.say("attach version=2 name=four")
      served.step()
      #expect(fourth.refusal() == "memory" && third.next() == nil)
    }
  }
}

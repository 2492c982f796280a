import CLinux
import Channel
import Glibc
import Memory
import Statistics
import Testing

@testable import Supervisor

extension ServerTests {
  @Test func administratorsReadTheCountersWhereTheyLie() throws {
    let served = try Served()
    let host = try CounterPage(capacity: 4)
    host.name(0, "rx_q0_packets")
    host.set(0, 41)
    let descriptor = host.descriptor
    served.server.publication = CounterPublication(
      page: try SupervisorCounters(), summary: "device=test queues=2",
      counters: { [("host_process", 7)] },
      addPages: { handout in
        let page = try! CounterPage(adopting: dup(descriptor), capacity: 4, writable: true)
        handout.add(page, "of=host")
      })
    let peer = try served.attached("web")
    defer { withExtendedLifetime(peer) {} }
    let administrator = served.peer()
    administrator.say("counters")
    served.step()
    var pages: [String: Int32] = [:]
    defer { for page in pages.values { close(page) } }
    var words: [String] = []
    while case .message(let message, let descriptors) = ControlMessage.receive(
      from: administrator.socket)
    {
      words.append(message.word)
      if message.word == "page" {
        #expect(descriptors.count == 1)
        pages[message["of"]!] = descriptors[0]
        if message["of"] == "instance" {
          #expect(message["name"] == "web" && message["slot"] == "0" && message["entries"] == "64")
        }
      } else {
        #expect(descriptors.isEmpty)
      }
    }
    #expect(words == ["run", "page", "page", "page", "end"])
    #expect(Set(pages.keys) == ["supervisor", "host", "instance"])
    let own = try CounterPage(adopting: dup(pages["supervisor"]!), capacity: 512, writable: false)
    let values = Dictionary(own.read()) { first, _ in first }
    #expect(values["instances"] == 1 && values["instances_attached"] == 1)
    #expect(values["host_process"] == 7 && values["i0_process"] == UInt64(getpid()))
    // What is counted afterwards is seen without a word to anybody.
    host.set(0, 42)
    let read = try CounterPage(adopting: dup(pages["host"]!), capacity: 4, writable: false)
    #expect(read.value(0) == 42)
    // Nobody can write by what was handed out.
    for page in pages.values {
      #expect(throws: MemoryError.self) { _ = try Arena(adopting: dup(page), byteCount: 4096) }
      #expect(write(page, "x", 1) == -1)
      #expect(fcntl(page, F_GETFL) & O_ACCMODE == O_RDONLY)
    }
    #expect(host.value(0) == 42)
  }

  @Test func whoIsNoAdministratorGetsNoPage() throws {
    var policy = Policy.usual()
    policy.administrators = []
    let served = try Served(policy)
    let peer = served.peer()
    peer.say("counters")
    served.step()
    guard case .message(let message, let descriptors) = ControlMessage.receive(from: peer.socket)
    else {
      Issue.record("no answer")
      return
    }
    #expect(message.word == "refused" && descriptors.isEmpty)
  }
}

@Suite struct SupervisorCountersTests {
  @Test func namesComeAndGo() throws {
    let page = try SupervisorCounters()
    var handout = CounterHandout("")
    page.add(to: &handout)
    let descriptor = try #require(handout.descriptors.first)
    let reader = try CounterPage(adopting: dup(descriptor), capacity: 512, writable: false)
    page.publish([("a", 1), ("b", 2)])
    page.publish([("b", 3), ("c", 4)])
    let values = Dictionary(reader.read()) { first, _ in first }
    #expect(values == ["b": 3, "c": 4])
  }
}

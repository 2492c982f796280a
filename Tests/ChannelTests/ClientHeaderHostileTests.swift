import CLinux
import CMartletChannel
import Foundation
import Memory
import PlayedSupervisor
import Steering
import Testing

@testable import Channel

/// A host, or a supervisor, that breaks the rules ends the channel and not the program.
@Suite struct HostileHostTests {
  let tests = ClientHeaderTests()

  @Test func indicesThatMakeNoSenseCloseTheChannel() throws {
    for (ring, index) in [
      (ChannelLayout.Ring.receive, UInt32(65)), (.receive, .max), (.completion, 1 << 31),
    ] {
      let supervisor = try PlayedSupervisor()
      let instance = try tests.attached(supervisor)
      defer { tests.drop(instance) }
      release_store32(
        supervisor.channel.address(supervisor.channel.layout.producerIndex(0, ring)), index)
      var taken = [martlet_descriptor](repeating: martlet_descriptor(), count: 64)
      let count =
        ring == .receive
        ? martlet_receive(instance, 0, &taken, 64) : martlet_completions(instance, 0, &taken, 64)
      #expect(count == -1)
      #expect(tests.closed(instance)?.contains("index") == true)
    }
  }

  @Test func aConsumerThatClaimsTooMuchIsNotBelieved() throws {
    let supervisor = try PlayedSupervisor()
    let instance = try tests.attached(supervisor)
    defer { tests.drop(instance) }
    let packets = [martlet_descriptor](
      repeating: martlet_descriptor(segment: 64, offset: 0, length: 1, flags: 0, tag: 0), count: 64)
    #expect(martlet_send(instance, 0, packets, 64) == 64)
    let index = supervisor.channel.address(supervisor.channel.layout.consumerIndex(0, .transmit))
    for claimed in [UInt32(65), .max, 1 << 31] {
      release_store32(index, claimed)
      #expect(martlet_send(instance, 0, packets, 1) == 0)
    }
    release_store32(index, 64)
    #expect(martlet_send(instance, 0, packets, 1) == 1)
  }

  @Test func piecesOutsideTheReceivePartCloseTheChannel() throws {
    for slot in [
      Descriptor(segment: .max, length: 1), Descriptor(segment: 0, offset: .max, length: 1),
      Descriptor(segment: 63, offset: 1000, length: 25), Descriptor(segment: 64, length: 1),
      Descriptor(segment: 0, length: .max),
      Descriptor(segment: .max, offset: .max, length: .max),
    ] {
      let supervisor = try PlayedSupervisor()
      let instance = try tests.attached(supervisor)
      defer { tests.drop(instance) }
      var host = supervisor.hostEnd()
      var burst = Burst(capacity: 1)
      burst.append(slot)
      host.receive.push(&burst)
      var taken = [martlet_descriptor](repeating: martlet_descriptor(), count: 64)
      #expect(martlet_receive(instance, 0, &taken, 64) == -1, "\(slot)")
      #expect(tests.closed(instance)?.contains("outside") == true)
    }
  }

  @Test func aPacketWithoutEndClosesTheChannel() throws {
    let supervisor = try PlayedSupervisor()
    let instance = try tests.attached(supervisor)
    defer { tests.drop(instance) }
    let memory = supervisor.channel.address(supervisor.channel.layout.slots(0, .receive))
      .assumingMemoryBound(to: Descriptor.self)
    for index in 0..<64 { memory[index] = Descriptor(segment: 0, length: 1, flags: .more) }
    release_store32(
      supervisor.channel.address(supervisor.channel.layout.producerIndex(0, .receive)), 64)
    var taken = [martlet_descriptor](repeating: martlet_descriptor(), count: 64)
    #expect(martlet_receive(instance, 0, &taken, 64) == -1)
    #expect(tests.closed(instance)?.contains("without end") == true)
  }

  @Test(arguments: [
    ("id=257", "id=x"), ("mtu=1500", "mtu=10"), ("queues=1", "queues=0"), ("queues=1", "queues=65"),
    ("queues=1", "queues=2"), ("slots=64", "slots=65"), ("slots=64", "slots=128"),
    ("slots=64", "slots=99999999999999999999"), ("receive-bytes=65536", "receive-bytes=131072"),
    ("arena-bytes=131072", "arena-bytes=262144"), ("mac=02", "mac=zz"), ("version=2", "version=1"),
    ("welcome ", "hello "), ("commands=no", "commands=yes"), ("mtu=1500 ", ""),
  ])
  func aWelcomeThatMakesNoSenseIsRefused(_ right: String, _ wrong: String) throws {
    let supervisor = try PlayedSupervisor()
    #expect(supervisor.welcome.text.contains(right))
    supervisor.sendWelcome(supervisor.welcome.text.replacing(right, with: wrong))
    let instance = ClientHeaderTests.Instance.allocate(capacity: 1)
    defer { instance.deallocate() }
    #expect(martlet_adopt(instance, supervisor.instanceSocket) == -1)
    #expect(!tests.reason(instance).isEmpty)
  }

  @Test func descriptorsThatAreNoMemoryAreRefused() throws {
    for place in 0..<2 {
      for wrong in ["/dev/null", "/proc/self/exe"] {
        let supervisor = try PlayedSupervisor()
        let file = open(wrong, O_RDONLY | O_CLOEXEC)
        defer { close(file) }
        var descriptors = supervisor.descriptors
        descriptors[place] = file
        supervisor.sendWelcome(descriptors: descriptors)
        let instance = ClientHeaderTests.Instance.allocate(capacity: 1)
        defer { instance.deallocate() }
        #expect(martlet_adopt(instance, supervisor.instanceSocket) == -1)
        #expect(tests.reason(instance).contains("memory"))
      }
    }
  }

  @Test func aRefusalAndASilentEndAreSaid() throws {
    let instance = ClientHeaderTests.Instance.allocate(capacity: 1)
    defer { instance.deallocate() }
    let refusing = try PlayedSupervisor()
    refusing.sendWelcome(Refusal(reason: "the token is wrong").text, descriptors: [])
    #expect(martlet_adopt(instance, refusing.instanceSocket) == -1)
    #expect(tests.reason(instance) == "the token is wrong")
    let gone = try PlayedSupervisor()
    shutdown(gone.socket, Int32(SHUT_RDWR))
    #expect(martlet_adopt(instance, gone.instanceSocket) == -1)
    #expect(tests.reason(instance).contains("closed the connection"))
    #expect(martlet_attach(instance, "/nowhere/at/all", "name=a") == -1)
    #expect(tests.reason(instance).contains("No such file"))
    #expect(martlet_attach(instance, String(repeating: "x", count: 200), "name=a") == -1)
    #expect(tests.reason(instance).contains("too long"))
  }
}

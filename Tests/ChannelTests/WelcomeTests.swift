import Channel
import Steering
import Testing

@Suite struct AttachRequestTests {
  @Test func textGoesBothWays() throws {
    let bare = AttachRequest(name: "a", claims: [])
    #expect(try AttachRequest(ControlMessage(bare.text)) == bare)
    #expect(bare.text == "attach version=2 name=a")
    let full = AttachRequest(
      name: "web-1", token: [0, 0xab, 0xff],
      claims: try ["ipv4:10.0.0.3", "ipv6:fe80::1/tcp/80-90", "rest"].map {
        try #require(Claim($0))
      },
      memory: 64)
    #expect(try AttachRequest(ControlMessage(full.text)) == full)
  }

  @Test(arguments: [
    ("hello version=2 name=a", "hello"), ("attach name=a", "version none"),
    ("attach version=1 name=a", "version 1"), ("attach version=2", "lacks name"),
    ("attach version=2 name=a/b", "value of name"),
    ("attach version=2 name=\(String(repeating: "a", count: 33))", "value of name"),
    ("attach version=2 name=a token=abc", "value of token"),
    ("attach version=2 name=a token=0g", "value of token"),
    ("attach version=2 name=a token=\(String(repeating: "00", count: 65))", "value of token"),
    ("attach version=2 name=a claims=ipv4:10.0.0.3,", "value of claims"),
    ("attach version=2 name=a claims=tcp", "value of claims"),
    (
      "attach version=2 name=a claims=\(Array(repeating: "rest", count: 65).joined(separator: ","))",
      "value of claims"
    ),
    ("attach version=2 name=a memory=0", "value of memory"),
    ("attach version=2 name=a memory=-1", "value of memory"),
    ("attach version=2 name=a memory=99999999999999999999", "value of memory"),
  ])
  func anythingElseIsRefused(_ text: String, _ why: String) throws {
    let error = #expect(throws: AttachError.self) { try AttachRequest(ControlMessage(text)) }
    #expect("\(try #require(error))".contains(why))
  }

  @Test func aRefusalKeepsItsWholeReason() {
    let refusal = Refusal(reason: "10.0.0.3 is another instance's = taken")
    #expect(Refusal(ControlMessage(refusal.text)) == refusal)
    #expect(Refusal(ControlMessage("welcome reason=x")) == nil)
  }
}

@Suite struct WelcomeTests {
  static let plain = Welcome(
    id: 257, macAddress: [2, 0, 0, 0, 0xab, 1], mtu: 1500, offloads: 3, queues: 2,
    channel: ChannelLayout(queues: 2, slots: 256)!, receiveBytes: 4096, arenaBytes: 8192,
    maximumBytes: 8192, use: .exclusive)

  @Test func textGoesBothWays() throws {
    #expect(try Welcome(ControlMessage(Self.plain.text), descriptorCount: 6) == Self.plain)
    var full = Self.plain
    full.channel = ChannelLayout(queues: 4, slots: 256)!
    full.use = .shared
    full.hasCommands = true
    full.arenaAddress = 0x7f00_0000_0000
    full.credential = [1, 2, 0xfe]
    full.claims = try [#require(Claim("ipv4:10.0.0.3")), .rest]
    #expect(try Welcome(ControlMessage(full.text), descriptorCount: 8) == full)
  }

  @Test func descriptorsStandInOneOrder() {
    var welcome = Self.plain
    #expect(welcome.descriptorCount == 6)
    let first: [InstanceDescriptor] = [.arena, .channel, .counters, .ownDoorbell]
    #expect(first.map { welcome.position(of: $0) } == [0, 1, 2, 3])
    #expect(welcome.position(of: .commands) == nil)
    #expect(welcome.position(of: .hostDoorbell(1)) == 5)
    #expect(welcome.position(of: .hostDoorbell(2)) == nil)
    welcome.hasCommands = true
    #expect(first.map { welcome.position(of: $0) } == [0, 1, 2, 3])
    #expect(welcome.position(of: .commands) == 4)
    #expect(welcome.position(of: .commandDoorbell) == 5)
    #expect(welcome.position(of: .hostDoorbell(0)) == 6)
  }

  @Test(arguments: [
    ("id=257", "id=4294967296"), ("mac=02:", "mac=03:"), ("ab:01", "ab"), ("ab:01", "ab:1"),
    ("mtu=1500", "mtu=67"), ("queues=2", "queues=0"), ("queues=2", "queues=65"),
    ("slots=256", "slots=255"), ("slots=256", "slots=131072"),
    ("receive-bytes=4096", "receive-bytes=0"), ("receive-bytes=4096", "receive-bytes=8192"),
    ("receive-bytes=4096", "receive-bytes=4097"), ("arena-bytes=8192", "arena-bytes=4096"),
    ("arena-bytes=8192", "arena-bytes=12288"), ("maximum-bytes=8192", "maximum-bytes=4096"),
    ("maximum-bytes=8192", "maximum-bytes=8796093022208"), ("mode=exclusive", "mode=poll"),
    ("commands=no", "commands=maybe"), ("commands=no", "channel-queues=1"),
    ("commands=no", "arena-address=0"), ("commands=no", "credential=zz"),
    ("commands=no", "claims=nothing"), ("version=2", "version=3"), ("welcome", "attach"),
    (" mtu=1500", ""),
  ])
  func numbersThatMakeNoSenseAreRefused(_ right: String, _ wrong: String) throws {
    let text = Self.plain.text
    try #require(text.contains(right))
    let changed = text.replacing(right, with: wrong)
    #expect(throws: AttachError.self) {
      try Welcome(ControlMessage(changed), descriptorCount: 6)
    }
  }

  @Test func descriptorsAreCounted() {
    for count in [0, 5, 7] {
      #expect(throws: AttachError.descriptors(count, needed: 6)) {
        try Welcome(ControlMessage(Self.plain.text), descriptorCount: count)
      }
    }
  }

  @Test func aRefusalIsThrown() {
    #expect(throws: AttachError.refused("the token is wrong")) {
      try Welcome(ControlMessage("refused reason=the token is wrong"), descriptorCount: 0)
    }
  }
}

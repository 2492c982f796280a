import Channel
import Steering
import Testing

@testable import Supervisor

@Suite struct PolicyTests {
  static func problems(_ text: String) -> [String] {
    do {
      _ = try Policy(text: text, user: 1)
      return []
    } catch {
      return error.problems.map { "\($0.line): \($0.text)" }
    }
  }

  @Test func aWholeFileIsRead() throws {
    let digest = Hexadecimal.text(TokenDigest.of([1, 2, 3]))
    let policy = try Policy(
      text: """
        [socket]
        owner = 0
        group = "root"
        mode = "0660"
        users = ["root", 1000]
        administrators = [7]
        connections = 3

        [default]
        claims = ["ipv4:10.0.0.128/25"]
        memory = 8

        [[instance]]
        name = "web"
        users = [1001]
        token-sha256 = "\(digest)"
        claims = [
          "ipv4:10.0.0.3", # one
          "ipv6:2001:db8::/64/udp/53",
          "group:ff02::/16",
          "rest",
        ]
        memory = 32
        maximum-memory = 1024
        slots = 512
        weight = 4
        time = 25
        segments = 100
        credential-seconds = 60
        """, user: 1)
    #expect(policy.owner == 0 && policy.group == 0 && policy.mode == 0o660)
    #expect(policy.users == [0, 1000] && policy.administrators == [7])
    #expect(policy.connectionsPerUser == 3)
    let other = try #require(policy.rule(for: "other"))
    #expect(other.guaranteedBytes == 8 << 20 && other.maximumBytes == 64 << 20)
    #expect(other.allows(try #require(Claim("ipv4:10.0.0.200/tcp/80"))))
    #expect(!other.allows(try #require(Claim("ipv4:10.0.0.3"))))
    let web = try #require(policy.rule(for: "web"))
    #expect(web.users == [1001] && web.tokenDigest == TokenDigest.of([1, 2, 3]))
    #expect(web.guaranteedBytes == 32 << 20 && web.maximumBytes == 1024 << 20)
    #expect(web.slots == 512 && web.weight == 4 && web.timePercent == 25 && web.segments == 100)
    #expect(web.credentialSeconds == 60)
    for (claim, isAllowed) in [
      ("ipv4:10.0.0.3", true), ("ipv4:10.0.0.3/tcp/1-5", true), ("ipv4:10.0.0.4", false),
      ("ipv6:2001:db8::9/udp/53", true), ("ipv6:2001:db8::9/udp/52-53", false),
      ("ipv6:2001:db8::9/tcp/53", false), ("ipv6:2001:db8::9", false),
      ("ipv6:2001:db8:0:1::9/udp/53", false), ("group:ff02::fb", true), ("group:ff05::1", false),
      ("rest", true),
    ] {
      #expect(web.allows(try #require(Claim(claim))) == isAllowed, "\(claim)")
    }
  }

  @Test func withoutAFileTheOwnUserMayAttach() throws {
    let policy = Policy.usual(user: 1234)
    #expect(policy.users == [0, 1234] && policy.administrators == [0, 1234])
    let rule = try #require(policy.rule(for: "anything"))
    #expect(rule.maximumBytes == 64 << 20)
    #expect(rule.allows(.rest))
  }

  @Test func withoutADefaultOthersAreRefused() throws {
    let policy = try Policy(text: "[[instance]]\nname = \"web\"\n")
    #expect(policy.rule(for: "web") != nil)
    #expect(policy.rule(for: "other") == nil)
  }

  /// Each with the lines that have to be named, and words that have to be said of the first.
  @Test(arguments: [
    ("[socket]\nmode = 660\n", [2], "octal"),
    ("[socket]\nmode = \"0888\"\n", [2], "octal"),
    ("\n[socket]\nowner = \"no such user\"\n", [3], "owner takes"),
    ("[socket]\ngroup = -1\n", [2], "group takes"),
    ("[socket]\nusers = 0\n", [2], "users = ["),
    ("[socket]\nusers = [0,\n  1.5]\n", [2], "a fraction"),
    ("[socket]\nconnections = 0\n", [2], "from 1 to 1024"),
    ("[socket]\ncolour = 1\n", [2], "no key colour"),
    ("colour = 1\n[socket]\n", [1], "no key colour"),
    ("[default]\nname = \"x\"\n", [2], "no key name"),
    ("default = 3\n", [1], "where a table is due"),
    ("[default]\nmemory = 7\n", [2], "even number"),
    ("[default]\nmemory = 70000\n", [2], "even number"),
    ("[default]\nmemory = 128\n\nmaximum-memory = 64\n", [4], "less than memory"),
    ("[default]\nslots = 300\n", [2], "power of two"),
    ("[default]\nslots = 8192\n", [2], "from 256 to 4096"),
    ("[default]\nweight = 0\nsegments = \"all\"\n", [2, 3], "from 1 to 1000"),
    ("[default]\ntime = 0\n", [2], "from 1 to 100"),
    ("[default]\ncredential-seconds = 0\n", [2], "credential-seconds"),
    ("[default]\nclaims = \"rest\"\n", [2], "array"),
    ("[default]\nclaims = [\"ipv4:10.0.0.3/24\"]\n", [2], "claims such as"),
    ("[default]\nclaims = [\"ipv4:10.0.0.0/33\", \"ipv6:10.0.0.1\"]\n", [2, 2], "claims such as"),
    ("[default]\nclaims = [\"ipv4:10.0.0.0/24/tcp/0\"]\n", [2], "claims such as"),
    ("[instance]\nname = \"a\"\n", [1], "[[instance]]"),
    ("# none\n[[instance]]\nmemory = 8\n", [2], "no name"),
    ("[[instance]]\nname = \"a b\"\n", [2], "letters"),
    ("[[instance]]\nname = \"a\"\ntoken-sha256 = \"00\"\n", [3], "64 hexadecimal"),
    ("[[instance]]\nname = \"a\"\n[[instance]]\nname = \"a\"\n", [4], "another instance named a"),
    (
      "[[instance]]\nname=\"a\"\nclaims=[\"ipv4:10.0.0.3\"]\n[[instance]]\nname=\"b\"\n\nclaims=[\"rest\", \"ipv4:10.0.0.3\"]\n",
      [7], "also a's"
    ),
    (
      "[[instance]]\nname=\"a\"\nclaims=[\"ipv4:10.0.0.3/tcp/80-90\"]\n[[instance]]\nname=\"b\"\nclaims=[\"ipv4:10.0.0.3/tcp/90\"]\n",
      [6], "also a's"
    ),
    ("[socket\nmode = 3\n", [1], "no valid TOML"),
    ("[=]\n", [1], "begins with a letter"),
    ("[[[instance]]\n", [1], "begins with a letter"),
    ("[socket]\n[\n[socket]\n", [2], "begins with a letter"),
    ("\u{2003}[+]\n", [1], "outside of quotes"),
    ("[default]\nclaims = [ } ]\n", [2], "not open"),
    ("[default]\nclaims = [ ]\r# x\n", [2], "stands alone"),
    ("[socket]\n  [[ \u{e9}]]\n", [2], "begins with a letter"),
    ("[\u{1d}\u{0})cket]\n", [1], "begins with a letter"),
    ("[socket]\nmode = \"0600\"\u{0}\nnonsense\n", [2], "outside of quotes"),
    ("[socket]\nmode = \"06\u{1}0\"\n# \u{0}\n", [2], "control character"),
    ("[socket]\nmode = \"0660\"\nmode = \"0600\"\n", [3], "no valid TOML"),
    ("[socket]\nusers = [1,\n\n", [3], "no valid TOML"),
  ])
  func anErrorHasItsLine(text: String, lines: [Int], words: String) {
    let problems = Self.problems(text)
    #expect(problems.map { $0.prefix { $0 != ":" } } == lines.map { "\($0)" }, "\(problems)")
    #expect(problems.first?.contains(words) ?? false, "\(problems)")
  }

  @Test func allErrorsAreSaidAtOnceInOrder() {
    let problems = Self.problems(
      "[default]\nmemory = 7\n\n[socket]\nmode = 1\n[[instance]]\nweight = 0\n")
    #expect(problems.map { $0.first } == ["2", "5", "6", "7"], "\(problems)")
  }

  @Test func stagesStandInOrder() throws {
    let policy = try Policy(
      text: """
        [[stage]]
        name = "wall"
        kind = "firewall"
        configuration = "default drop"
        fails = "open"
        hang-milliseconds = 50
        [[stage]]
        name = "own_1"
        program = "/usr/bin/own"
        packets = "rules"
        ways = ["receive"]
        """, user: 1)
    var wall = StageRule()
    wall.name = "wall"
    wall.kind = "firewall"
    wall.configuration = "default drop"
    wall.failsClosed = false
    wall.hangMilliseconds = 50
    var own = StageRule()
    own.name = "own_1"
    own.program = "/usr/bin/own"
    own.takesAll = false
    own.transmits = false
    #expect(policy.stages == [wall, own])
  }

  @Test func whatIsWrongWithStagesIsSaid() {
    let problems = Self.problems(
      """
      [[stage]]
      name = "Wall"
      fails = "shut"
      packets = 3
      ways = ["up"]
      hang-milliseconds = 1
      configuration = "a"
      configuration-file = "b"
      [[stage]]
      kind = "shaper"
      name = "same"
      [[stage]]
      kind = "shaper"
      name = "same"
      colour = "red"
      """)
    let words = [
      "no kind", "name", "fails", "packets", "ways", "hang-milliseconds", "leave one out",
    ]
    #expect(problems.count == 9)
    for (problem, word) in zip(problems, words) { #expect(problem.contains(word), "\(problem)") }
    #expect(problems.suffix(2).contains { $0.contains("another stage named same") })
    #expect(problems.suffix(2).contains { $0.contains("no key colour") })
    let many = (0..<9).map { "[[stage]]\nname = \"s\($0)\"\nkind = \"vlan\"\n" }.joined()
    #expect(Self.problems(many).count == 1)
    #expect(Self.problems("[stage]\nname = \"x\"").first?.contains("[[stage]]") == true)
  }

  @Test func aFileThatIsNotThereIsOneLine() {
    #expect(throws: PolicyError.self) { try Policy(path: "/nonexistent/policy.toml") }
  }

  @Test func rulesMayShareARangeButNotWhatOneNames() throws {
    let policy = try Policy(
      text: """
        [default]
        claims = ["ipv4:10.0.0.0/24"]
        [[instance]]
        name = "a"
        claims = ["ipv4:10.0.0.0/24", "ipv4:10.0.0.3"]
        [[instance]]
        name = "b"
        claims = ["ipv4:10.0.0.3/tcp/80"]
        """)
    let (a, b) = (try #require(policy.rule(for: "a")), try #require(policy.rule(for: "b")))
    let other = try #require(policy.rule(for: "c"))
    let address = try #require(Claim("ipv4:10.0.0.3"))
    let port = try #require(Claim("ipv4:10.0.0.3/tcp/80"))
    let further = try #require(Claim("ipv4:10.0.0.3/tcp/81"))
    #expect(policy.isFree(address, for: a) && !policy.isFree(address, for: other))
    #expect(policy.isFree(port, for: b) && !policy.isFree(port, for: other))
    #expect(!policy.isFree(further, for: other) && !policy.isFree(further, for: b))
    #expect(policy.isFree(try #require(Claim("ipv4:10.0.0.4")), for: other))
  }
}

@Suite struct TokenDigestTests {
  /// FIPS 180-4's examples, and one of several blocks.
  @Test(arguments: [
    ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    (
      String(repeating: "a", count: 1000),
      "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"
    ),
  ])
  func digestsAreTheStandards(text: String, digest: String) {
    #expect(Hexadecimal.text(TokenDigest.of(Array(text.utf8))) == digest)
  }

  @Test func onlyTheTokenMatches() {
    let digest = TokenDigest.of([1, 2, 3, 4])
    #expect(TokenDigest.matches([1, 2, 3, 4], digest))
    #expect(!TokenDigest.matches([1, 2, 3, 5], digest))
    #expect(!TokenDigest.matches([], digest))
  }
}

@Suite struct WindowPlanTests {
  @Test func placesAreTakenByFirstFitAndGivenBack() {
    let huge = WindowPlan.granule
    var plan = WindowPlan(byteCount: 20 * huge, hostBytes: 3 * huge - 1)
    let first = plan.reserve(4 * huge)
    let second = plan.reserve(huge + 1)
    let third = plan.reserve(4 * huge)
    #expect(first == 3 * huge && second == 7 * huge && third == 9 * huge)
    #expect(plan.reservedBytes == 10 * huge)
    plan.release(3 * huge)
    #expect(plan.reserve(5 * huge) == 13 * huge)
    #expect(plan.reserve(4 * huge) == 3 * huge)
    #expect(plan.reserve(3 * huge) == nil)
    plan.release(0)
    #expect(plan.reserve(2 * huge) == 18 * huge)
    #expect(plan.reserve(huge) == nil)
  }
}

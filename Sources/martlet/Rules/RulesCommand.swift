import ArgumentParser
import Channel
import Glibc
import Steering
import Supervisor

/// `martlet rules`: which packets go where on a shared NIC.
struct RulesCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rules", abstract: "Say which packets go where on a shared NIC, while it runs.",
    discussion: """
      A rule is one line of text, or one [[rule]] of a TOML file (`martlet run --share SOCKET --rules FILE.toml`):

        rule web priority=10 destination=10.0.0.3 protocol=tcp destination-port=80 to=web
        rule both destination=10.0.0.4 protocol=tcp to=a,b       # by flow: both directions of one go to the same
        rule scans protocol=tcp source=192.0.2.0/24 drop
        rule watched vlan=7 clone=watcher                        # besides whoever gets it
        rule pings protocol=icmp icmp-type=8 limit=100pps burst=20

      Lower priorities are looked at first, then the order of the set; the first rule that matches decides. Where none does, \
      claims decide (`martlet attach --claim`). Each packet sees a set of rules as a whole, the old one or the new one. \
      Instances are named as they attach (--name); several of one name share what is for it by flow.

      A protocol of one's own: where it stands, how it is known there, how long its header is, what follows, and its fields:

        protocol geo above=ethernet type=0x88b5 header=12 next=2:2:ethertype field=kind:0:1
        rule maps geo.kind=3 to=maps

      Exit codes: 0 done, 1 refused or the run cannot be asked.
      """,
    subcommands: [
      List.self, Add.self, Modify.self, Remove.self, Move.self, ReplaceRules.self, Check.self,
      TestRules.self,
    ])

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Show the rules of a run, in the order in which they are set, with their counts.",
      discussion: """
        Above them stands what the device lets through: packets for its own address and broadcasts, for the addresses that \
        rules name as destination-mac, and for the groups that claims and rules name; all groups where a rule, a stage or a \
        claim of the rest may want any. What it does not let through is not counted, and in no capture. Where a device tells \
        no addresses apart, the host alone does.

        Each rule says who applies it: `device and host` where the device knows the address, else `host`. Devices know \
        addresses only: all else is looked at by the host.
        """)

    @OptionGroup var sharing: SharingOption
    @Flag(help: "Print a JSON object for each rule.") var json = false
    @Flag(help: "Print a text that `martlet rules replace` takes.") var text = false

    func run() throws {
      try reporting {
        let list = try RunRules(sharing).list()
        if !text && !json { say(list.remark) }
        for entry in list.entries {
          if text {
            say(entry.text)
          } else if json {
            if let counts = entry.counts { say(entry.json(counts)) }
          } else {
            say(entry.line)
          }
        }
        if !list.isInForce { writeLine("the driver host has not taken the last change yet", to: 2) }
      }
    }
  }

  struct Add: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Add rules, behind those that there are.")

    @OptionGroup var sharing: SharingOption
    @OptionGroup var given: GivenRules

    func run() throws {
      try reporting { try RunRules(sharing).change("add", try given.text()) }
    }
  }

  struct Modify: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Put rules in the places of those with the same names; they go on counting.")

    @OptionGroup var sharing: SharingOption
    @OptionGroup var given: GivenRules

    func run() throws {
      try reporting { try RunRules(sharing).change("modify", try given.text()) }
    }
  }

  struct Remove: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Remove rules.")

    @OptionGroup var sharing: SharingOption
    @Argument(help: "Their names.") var names: [String]

    func run() throws {
      try reporting {
        try RunRules(sharing).change("remove names=\(names.joined(separator: ","))")
      }
    }
  }

  struct Move: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Put a rule elsewhere among those of its priority.")

    @OptionGroup var sharing: SharingOption
    @Argument(help: "Its name.") var name: String
    @Option(
      help: ArgumentHelp(
        "The rule that it goes before; without this, to the end.", valueName: "name"))
    var before: String?

    func run() throws {
      try reporting {
        try RunRules(sharing).change("move name=\(name)" + (before.map { " before=\($0)" } ?? ""))
      }
    }
  }

  struct ReplaceRules: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "replace",
      abstract: "Set all rules anew, in one step; none at all with /dev/null.")

    @OptionGroup var sharing: SharingOption
    @Argument(help: "A TOML file, or a text with a rule a line.") var file: String

    func run() throws {
      try reporting {
        try RunRules(sharing).change("replace", try GivenRules.text(of: file))
      }
    }
  }

  struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Read a file of rules and say all that is wrong with it, or questionable.",
      discussion: "Exit code: 0 when it can be used, 1 when not.")

    @Argument(help: "A TOML file, or a text with a rule a line.") var file: String

    func run() throws {
      try reporting {
        let rules = try GivenRules.rules(of: file)
        for remark in try rules.remarks() { say("\(file): \(remark)") }
        say("\(file): \(rules.rules.count) rules, \(rules.protocols.count) protocols")
      }
    }
  }
}

/// Rules on a command line, or in a file.
struct GivenRules: ParsableArguments {
  @Argument(help: ArgumentHelp("Such as 'rule web destination-port=80 to=web'.", valueName: "rule"))
  var lines: [String] = []
  @Option(help: ArgumentHelp("A TOML file, or a text with a rule a line.", valueName: "file"))
  var file: String?

  func validate() throws {
    if lines.isEmpty == (file == nil) {
      throw ValidationError("give rules, each in quotes, or a --file of them")
    }
  }

  func text() throws -> String {
    try file.map(Self.text) ?? lines.joined(separator: "\n")
  }

  static func text(of path: String) throws -> String { try read(path).text }
  static func rules(of path: String) throws -> RuleSet { try read(path).rules }

  private static func read(_ path: String) throws -> RuleFile {
    do {
      return try RuleFile(path: path)
    } catch {
      throw CommandFailure.failed(error)
    }
  }
}

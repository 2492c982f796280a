import ArgumentParser
import Supervisor

/// `martlet policy check`: whether a policy file can be used.
struct PolicyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "policy", abstract: "Check who may attach to a shared NIC.",
    discussion: """
      A policy is a TOML file for `martlet run --share SOCKET --policy FILE`:

        [socket]
        owner = "root"                 # of the socket's file, and its group; by name or number
        group = "nic"
        mode = "0660"
        users = ["root", 1000]         # may attach, where an instance names none, and make and use memory handles
        administrators = ["root"]      # may use stats, memory and close
        connections = 16               # of one user at once

        [memory]
        budget = 4096                  # MiB that all instances may have together; left out, what the system has
        let-go-milliseconds = 2000     # that an instance has to let go of memory, 10 to 60000
        idle-milliseconds = 5000       # without traffic, after which it is asked for some, 100 to 86400000
        pressure = "some 300000 2000000"  # when memory is short (the kernel's psi.rst); "off"

        [default]                      # for names without a rule; left out, such are refused
        claims = ["ipv4:10.0.0.128/25"]
        memory = 16                    # MiB that an instance always has: even, 4 to 65536
        maximum-memory = 64            # MiB that it may grow to
        registered-memory = 64         # MiB of applications' own that it may send from: even, 0 to 65536

        [[instance]]
        name = "web"
        users = [1001]
        token-sha256 = "…"             # of the token's file: sha256sum FILE
        claims = ["ipv4:10.0.0.3", "ipv4:10.0.0.4/tcp/8000-8999", "group:224.0.0.251", "rest", "any"]
        slots = 4096                   # of each ring of its channel: a power of two, 256 to 4096
        weight = 1                     # its part of the host's time beside the others', 1 to 1000
        time = 100                     # percent of the host's time that it gets at most, 1 to 100
        segments = 4096                # received segments that it may hold
        credential-seconds = 86400     # how long its credential is good

        [[stage]]                      # what packets go through; the first one is the nearest to the wire
        name = "wall"                  # lower-case letters, digits and _
        kind = "firewall"              # of martlet-stage: firewall, nat44, vlan or shaper
        program = "/usr/local/bin/x"   # or one of your own, which gets the kind too
        configuration-file = "wall.rules"  # from this file's folder; or the text itself: configuration = "…"
        packets = "all"                # or "rules": those that a rule sends there by stage=wall
        ways = ["receive", "transmit"] # of all packets
        fails = "closed"               # without its process packets are dropped; "open": they pass it by
        hang-milliseconds = 200        # that it may leave packets waiting before it is started anew, 10 to 60000

      What one rule names exactly (one address, ports of one address, rest) is kept for it. A token is not in the file, \
      only its digest: take 16 random bytes or more.
      """, subcommands: [Check.self])

  struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Read a policy file and say all that is wrong with it.",
      discussion: "Exit code: 0 when it can be used, 1 when not.")

    @Argument var file: String

    func run() throws {
      do {
        let policy = try Policy(path: file)
        say(
          "\(file): \(policy.instances.count) instances by name, others \(policy.unnamed == nil ? "refused" : "by [default]")\(policy.stages.isEmpty ? "" : "; stages " + policy.stages.map(\.name).joined(separator: ", "))"
        )
      } catch {
        writeLine("\(error)", to: 2)
        throw ExitCode(1)
      }
    }
  }
}

import CLinux
import Channel
import Glibc
import Histogram
import Loops
import Stacks
import Steering
import Supervisor

/// Two instances that attach to a NIC that runs and try its commands: `martlet bench-end attached-commands`. Says what
/// came of each in a line, then what a round trip took.
public enum AttachedCommandClient {
  public static func run(socket: String, count: Int) throws {
    let (first, second) = (try attach(socket, "first", 3), try attach(socket, "second", 4))
    guard var one = try first.makeCommandClient(), var two = try second.makeCommandClient() else {
      throw SupervisorError.input("the supervisor has no command channel")
    }
    let link = try one.linkState()
    print("link \(link.isUp ? "up" : "down") mtu \(link.mtu == UInt64(first.mtu))")
    let time = try one.time()
    let (here, there) = (monotonic_nanoseconds(), time.monotonic)
    print("time \(here > there && here - there < 1_000_000_000)")
    print("statistics \(try one.statistics().sentPackets)")
    say("join", &one) { client throws(CommandError) in try client.join("ipv4:10.0.0.5/udp/53") }
    say("join again", &one) { client throws(CommandError) in
      try client.join("ipv4:10.0.0.5/udp/53")
    }
    say("join another's", &two) { client throws(CommandError) in
      try client.join("ipv4:10.0.0.5/udp/50-60")
    }
    say("join nonsense", &two) { client throws(CommandError) in try client.join("ipv4:nonsense") }
    say("leave another's", &two) { client throws(CommandError) in
      try client.leave("ipv4:10.0.0.5/udp/53")
    }
    say("leave", &one) { client throws(CommandError) in try client.leave("ipv4:10.0.0.5/udp/53") }
    say("join what was left", &two) { client throws(CommandError) in
      try client.join("ipv4:10.0.0.5/udp/50-60")
    }
    say("grow", &one) { client throws(CommandError) in _ = try client.grow(by: 2 << 20) }
    let own = one.credential
    one.credential = two.credential
    say("another's credential", &one) { client throws(CommandError) in _ = try client.time() }
    one.credential = CredentialID(high: own.high, low: own.low ^ 1)
    say("a guessed credential", &one) { client throws(CommandError) in _ = try client.time() }
    one.credential = own
    fflush(nil)
    try measure(count, &one)
  }

  private static func attach(
    _ socket: String, _ name: String, _ last: Int
  ) throws -> InstanceEnvironment {
    let environment = try InstanceEnvironment.attach(
      path: socket,
      request: AttachRequest(name: name, claims: [Claim("ipv4:10.0.0.\(last)")].compactMap(\.self)))
    environment.connection.send("ready")
    // The supervisor takes commands about claims once it has heard that.
    pause(milliseconds: 100)
    return environment
  }

  private static func say(
    _ what: String, _ client: inout CommandClient,
    _ body: (inout CommandClient) throws(CommandError) -> Void
  ) {
    do throws(CommandError) {
      try body(&client)
      print("\(what): done")
    } catch {
      print("\(what): \(error)")
    }
  }

  private static func measure(_ count: Int, _ client: inout CommandClient) throws {
    var histogram = Histogram<UInt64>(
      highestTrackableValue: 1_000_000_000, numberOfSignificantValueDigits: .three)
    client.spins = .max
    var start = monotonic_nanoseconds()
    for index in 0..<count {
      _ = try client.call(SteadyService.command(index))
      let now = monotonic_nanoseconds()
      histogram.record(min(now - start, 999_999_999))
      start = now
    }
    let percentiles = [50, 99, 99.9].map { "\(histogram.valueAtPercentile($0))" }
    print("\(count) round trips, p50 p99 p99.9 in ns:", percentiles.joined(separator: " "))
    print("credentials still good: \(try client.time().realtime > 0)")
  }
}

import ArgumentParser
import Statistics

/// `martlet metrics`: a run's counters for Prometheus.
struct Metrics: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve a run's counters to Prometheus, over HTTP.",
    discussion: """
      GET /metrics reads the counters where they lie: neither the path of packets nor the supervisor notices. While there \
      is no run at the socket, martlet_up is 0. Anybody who reaches the address can read it, so it is one of this machine \
      unless --force is given. Exit code: 1 when the address cannot be listened on.
      """)

  @OptionGroup var sharing: SharingOption
  @Option(help: ArgumentHelp("Where to listen, as numbers.", valueName: "address:port"))
  var listen = "127.0.0.1:9464"
  @Flag(help: "Listen where other machines may reach it, too.") var force = false

  func run() throws {
    try reporting {
      guard let address = ListenAddress(listen) else {
        throw CommandFailure(
          code: 2, text: "\(listen): an address is 127.0.0.1:9464 or [::1]:9464, in numbers")
      }
      guard address.isLoopback || force else {
        throw CommandFailure(
          code: 2,
          text:
            "\(listen): other machines could read the counters: choose a loopback address, or say --force"
        )
      }
      var page = MetricsPage(socket: sharing.socket)
      var server: MetricsServer
      do {
        server = try MetricsServer(address)
      } catch {
        throw CommandFailure(code: 1, text: "\(listen): \(error)")
      }
      say("port \(server.port): GET /metrics")
      while true { server.turn(milliseconds: 10_000) { page.answer() } }
    }
  }
}

/// The page that Prometheus reads: from the run that is at a socket, once there is one.
struct MetricsPage {
  let socket: String
  private var source: RunCounters?

  init(socket: String) { self.socket = socket }

  mutating func answer() -> HTTPAnswer {
    do throws(AdministrationError) {
      if let source { try source.refresh() } else { source = try RunCounters(socket: socket) }
    } catch {
      // Another run may come.
      source = nil
    }
    let text = source.map(Self.text) ?? PrometheusText(isUp: false).text
    return HTTPAnswer(status: 200, contentType: PrometheusText.contentType, body: text)
  }

  /// All that a run counts.
  static func text(of source: RunCounters) -> String {
    var page = PrometheusText(isUp: !source.isOver)
    var names: [Int: String] = [:]
    for instance in source.instances {
      if let slot = instance.slot { names[slot] = instance.name }
    }
    page.add(source.read(), instanceNames: names)
    page.add(source.readTimes())
    return page.text
  }
}

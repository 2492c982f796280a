import ArgumentParser
import CLinux
import Glibc
import Statistics
import Top

/// `martlet top`: a run, live.
struct TopCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "top", abstract: "Watch a run: rates, drops, rings, memory, processor time.",
    discussion: """
      Keys: q ends, p pauses, s sorts, h shows all. Without colours where NO_COLOR is set. Counters are read from the memory \
      in which they are counted, which disturbs nobody.
      """)

  @OptionGroup var sharing: SharingOption
  @Option(help: ArgumentHelp("How often to look.", valueName: "milliseconds"))
  var interval = 1000

  func validate() throws {
    guard (250...8000).contains(interval) else {
      throw ValidationError("--interval is 250 to 8000 milliseconds")
    }
  }

  func run() throws {
    try reporting {
      let source = try sharing.counters()
      let terminal: Terminal
      do {
        terminal = try Terminal()
      } catch {
        throw CommandFailure.failed(error)
      }
      var live = LiveView(source: source, interval: interval)
      live.run(terminal)
    }
  }
}

/// The view that follows a run.
struct LiveView {
  private let source: RunCounters
  private var view = TopView()
  private var history = RunHistory()

  init(source: RunCounters, interval: Int) {
    self.source = source
    view.interval = interval
    view.hasColours = Self.environment("NO_COLOR").isEmpty
    let locale = [
      Self.environment("LC_ALL"), Self.environment("LC_CTYPE"), Self.environment("LANG"),
    ]
    let encoding = locale.first { !$0.isEmpty }?.lowercased() ?? ""
    view.isUnicode = encoding.contains("utf-8") || encoding.contains("utf8")
    view.title = ["device", "mac", "mode"].compactMap { source.summary[$0] }.joined(separator: "  ")
  }

  private static func environment(_ name: String) -> String {
    getenv(name).map { String(cString: $0) } ?? ""
  }

  mutating func run(_ terminal: consuming Terminal) {
    var terminal = terminal
    var next: UInt64 = 0
    while true {
      let now = monotonic_milliseconds()
      if now >= next {
        next = now + UInt64(view.interval)
        if !view.isPaused { read() }
      }
      (view.columns, view.rows) = terminal.size
      terminal.show(view.lines(history))
      let wait = Int32(clamping: next - min(next, monotonic_milliseconds()))
      switch terminal.wait(milliseconds: wait) {
      case .end: return
      case .timeout, .resized: break
      case .key(let key):
        if !obey(key) { return }
        next = min(next, monotonic_milliseconds() + UInt64(view.interval))
      }
    }
  }

  private mutating func read() {
    // A run that has ended is shown as it was at its end; another one at its socket is followed.
    try? source.refresh()
    view.isOver = source.isOver
    let counters = source.read()
    let processes = counters.filter { $0.name.hasSuffix("_process") }.map(\.value)
    history.add(
      RunHistory.Reading(
        time: monotonic_nanoseconds(), counters: counters, instances: source.instances,
        processorTime: ProcessorTime.of(processes + source.instances.map { UInt64($0.pid) }),
        times: source.readTimes()))
  }

  /// - Returns: false where the user wants to leave.
  private mutating func obey(_ key: Terminal.Key) -> Bool {
    switch key {
    case .character("q"), .character("Q"): return false
    case .character("p"), .character(" "): view.isPaused.toggle()
    case .character("s"): view.sort = view.sort.next
    case .character("r"): view.isReversed.toggle()
    case .character("h"), .character("?"): view.showsHelp.toggle()
    case .character("+"): view.interval = max(250, view.interval / 2)
    case .character("-"): view.interval = min(8000, view.interval * 2)
    case .character("j"), .down: view.scroll = min(view.scroll + 1, 63)
    case .character("k"), .up: view.scroll = max(0, view.scroll - 1)
    case .pageDown: view.scroll = min(view.scroll + 10, 63)
    case .pageUp: view.scroll = max(0, view.scroll - 10)
    case .escape: view.showsHelp = false
    default: break
    }
    return true
  }
}

import CLinux
import Glibc

/// The terminal of this process: without echo and line by line input as long as the value lives, on a screen of its own; then
/// as it was, also where the process crashes. One thread.
public struct Terminal: ~Copyable {
  private let before: termios
  private let signals: Int32
  private var shown: [String]
  /// What has been typed and not been looked at yet.
  private var typed: ArraySlice<UInt8>

  /// What has happened.
  public enum Event: Equatable, Sendable {
    case key(Key)
    /// The terminal has another size, or another program has written on it.
    case resized
    /// Somebody wants the program to end, or the terminal has gone.
    case end
    case timeout
  }

  public enum Key: Equatable, Sendable {
    case character(Character)
    case up, down, pageUp, pageDown, escape
  }

  /// Why a terminal cannot be drawn on.
  public struct Failure: Error, CustomStringConvertible {
    public let description: String
  }

  // A screen of its own, without a cursor; and back.
  private static let enter = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[2J"
  private static let leave = "\u{1b}[0m\u{1b}[?25h\u{1b}[?1049l"

  public init() throws(Failure) {
    guard isatty(0) == 1, isatty(1) == 1 else {
      throw Failure(description: "needs a terminal to draw on: `martlet stats --watch` needs none")
    }
    let kind = getenv("TERM").map { String(cString: $0) } ?? ""
    guard !kind.isEmpty, kind != "dumb" else {
      let found = kind.isEmpty ? "TERM is not set" : "TERM is \(kind)"
      throw Failure(description: "\(found): `martlet stats --watch` needs no terminal")
    }
    let wanted = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT]
    let signals = linux_signal_descriptor(wanted, Int32(wanted.count))
    guard signals >= 0 else { throw Failure(description: "signalfd: \(-signals)") }
    var before = termios()
    let result = linux_enter_raw_mode(0, &before, Self.leave)
    guard result == 0 else {
      close(signals)
      throw Failure(description: "the terminal: \(String(cString: strerror(-result)))")
    }
    self.before = before
    self.signals = signals
    shown = []
    typed = []
    Self.write(Self.enter)
  }

  deinit {
    restore()
    close(signals)
  }

  private func restore() {
    Self.write(Self.leave)
    var before = before
    tcsetattr(0, TCSAFLUSH, &before)
  }

  /// Columns and rows; 80 and 24 where the terminal does not say.
  public var size: (columns: Int, rows: Int) {
    var (columns, rows): (Int32, Int32) = (0, 0)
    guard linux_terminal_size(1, &columns, &rows) == 0, columns > 0, rows > 0 else {
      return (80, 24)
    }
    return (Int(columns), Int(rows))
  }

  /// Shows lines, from the top; only those are written that differ from what is there.
  public mutating func show(_ lines: [String]) {
    var text = ""
    for (row, line) in lines.enumerated() where row >= shown.count || shown[row] != line {
      text += "\u{1b}[\(row + 1);1H\(line)\u{1b}[K"
    }
    if lines.count < shown.count { text += "\u{1b}[\(lines.count + 1);1H\u{1b}[J" }
    shown = lines
    Self.write(text)
  }

  /// All is written anew next time.
  private mutating func forget() {
    shown = []
    Self.write("\u{1b}[2J")
  }

  /// Waits for a key, a signal or the end of a time.
  public mutating func wait(milliseconds: Int32) -> Event {
    if let key = Self.nextKey(&typed) { return .key(key) }
    var entries = [
      pollfd(fd: 0, events: Int16(POLLIN), revents: 0),
      pollfd(fd: signals, events: Int16(POLLIN), revents: 0),
    ]
    guard poll(&entries, 2, milliseconds) > 0 else { return .timeout }
    if entries[1].revents != 0 { return take(signal: linux_next_signal(signals)) }
    if entries[0].revents & Int16(POLLIN) == 0 { return .end }
    var bytes = [UInt8](repeating: 0, count: 64)
    let count = read(0, &bytes, bytes.count)
    if count <= 0 { return .end }
    typed = bytes[..<count]
    return Self.nextKey(&typed).map(Event.key) ?? .timeout
  }

  private mutating func take(signal: Int32) -> Event {
    switch signal {
    case 0: return .timeout
    case SIGWINCH, SIGCONT:
      forget()
      return .resized
    case SIGTSTP:
      restore()
      kill(getpid(), SIGSTOP)
      var ignored = termios()
      _ = linux_enter_raw_mode(0, &ignored, Self.leave)
      Self.write(Self.enter)
      forget()
      return .resized
    default: return .end
    }
  }

  /// Takes the first key of what was typed; what is none is left out.
  static func nextKey(_ typed: inout ArraySlice<UInt8>) -> Key? {
    while let first = typed.popFirst() {
      if first == 27 {
        // The codes of a key begin with ESC [ or ESC O, and end with the first byte from 64 on.
        guard let next = typed.first, next == 91 || next == 79 else { return .escape }
        typed.removeFirst()
        let end = typed.firstIndex { $0 >= 64 } ?? typed.endIndex
        let code = typed[..<min(end + 1, typed.endIndex)]
        typed = typed[code.endIndex...]
        if let key = key(code: Array(code)) { return key }
      } else if first >= 32 && first < 127 {
        return .character(Character(UnicodeScalar(first)))
      }
    }
    return nil
  }

  private static func key(code: [UInt8]) -> Key? {
    switch code {
    case [65]: .up
    case [66]: .down
    case [53, 126]: .pageUp
    case [54, 126]: .pageDown
    default: nil
    }
  }

  private static func write(_ text: String) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(1, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      if count <= 0 { return }
      rest = rest.dropFirst(count)
    }
  }
}

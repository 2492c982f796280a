/// What of a TOML text has to be right before the parser sees it: that one ends the process for a bracket that closes
/// another, for a table's header without a name, and takes a zero byte for the text's end.
struct TOMLOutline {
  private let scalars: [Unicode.Scalar]
  private var at = 0
  private var line = 1
  /// Brackets that are open.
  private var open: [Unicode.Scalar] = []

  /// - Throws: for what is in the way of parsing; all else is the parser's to say.
  static func check(_ text: String) throws(TOMLFailure) {
    var outline = TOMLOutline(scalars: Array(text.unicodeScalars))
    // Some editors begin a file so.
    if outline.next == "\u{feff}" { outline.at = 1 }
    while outline.next != nil { try outline.step() }
  }

  private init(scalars: [Unicode.Scalar]) { self.scalars = scalars }

  private var next: Unicode.Scalar? { at < scalars.count ? scalars[at] : nil }

  private func follows(_ text: String) -> Bool {
    scalars[at...].starts(with: text.unicodeScalars)
  }

  private func failure(_ reason: String) -> TOMLFailure { TOMLFailure(line: line, reason: reason) }

  /// One scalar outside of strings and comments, or all of a string, a comment or a header's begin.
  private mutating func step() throws(TOMLFailure) {
    guard let scalar = next else { return }
    switch scalar {
    case "#": while let inside = next, inside != "\n" { try take(inside) }
    case "\"", "'": try takeString(scalar)
    case "[" where open.isEmpty && isFirstOfLine: try takeHeader()
    case "[", "{": open.append(scalar)
    case "]", "}":
      guard open.popLast() == (scalar == "]" ? "[" : "{") else {
        throw failure("\(scalar) closes what is not open")
      }
    case "\n": line += 1
    case "\r": if !follows("\r\n") { throw failure("a carriage return stands alone: take it out") }
    case "\t", " "..."~": break
    default:
      throw failure(
        "character \(scalar.value) stands outside of quotes: put quotes around it, or take it out")
    }
    if scalar != "#" && scalar != "\"" && scalar != "'" { at += 1 }
  }

  /// One scalar of a string or a comment.
  private mutating func take(_ scalar: Unicode.Scalar) throws(TOMLFailure) {
    if scalar.value < 0x20 && !["\t", "\n", "\r"].contains(scalar) || scalar.value == 0x7f {
      throw failure("control character \(scalar.value) stands in it: take it out")
    }
    if scalar == "\n" { line += 1 }
    at += 1
  }

  private mutating func takeString(_ quote: Unicode.Scalar) throws(TOMLFailure) {
    let three = String(repeating: Character(quote), count: 3)
    let isLong = follows(three)
    at += isLong ? 3 : 1
    while let scalar = next {
      if isLong ? follows(three) : scalar == quote {
        at += isLong ? 3 : 1
        // A long string may end with quotes of its own.
        for _ in 0..<2 where isLong && next == quote { at += 1 }
        return
      }
      // The parser says that it does not end.
      if scalar == "\n" && !isLong { return }
      try take(scalar)
      if scalar == "\\", quote == "\"", let escaped = next, escaped != "\n" { try take(escaped) }
    }
  }

  /// Whether nothing but blanks stands before it in its line.
  private var isFirstOfLine: Bool {
    let before = scalars[..<at].lastIndex { $0 != " " && $0 != "\t" }
    return before.map { scalars[$0] == "\n" || scalars[$0] == "\u{feff}" } ?? true
  }

  /// The brackets that a table's header begins with; what follows has to be a key.
  private mutating func takeHeader() throws(TOMLFailure) {
    var after = at
    func skipBlanks() {
      while after < scalars.count, scalars[after] == " " || scalars[after] == "\t" { after += 1 }
    }
    for number in 0..<2 where number == 0 || after < scalars.count && scalars[after] == "[" {
      open.append("[")
      at = after
      after += 1
      skipBlanks()
    }
    guard after < scalars.count else { return }
    switch scalars[after] {
    case "a"..."z", "A"..."Z", "0"..."9", "_", "-", "\"", "'", "]": break
    default: throw failure("a table's name begins with a letter, a digit or a quote")
    }
  }
}

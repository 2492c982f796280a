import Steering

/// What a process asks for when it wants to become an instance on a shared NIC: the first message over the supervisor's
/// socket, `attach version=2 name=NAME [token=HEX] [claims=C1,C2,…] [memory=MIB]`.
public struct AttachRequest: Sendable, Equatable {
  /// Of all messages between supervisor and instances.
  public static let version = 2
  public static let maximumNameBytes = 32
  public static let maximumTokenBytes = 64
  public static let maximumClaims = 64

  /// Who it is, for people: 1 to 32 letters, digits, `-`, `_` and `.`.
  public var name: String
  /// What the supervisor's policy may ask for; empty for none.
  public var token: [UInt8]
  /// What it wants to receive, and from where it wants to send.
  public var claims: [Claim]
  /// The most memory that it wants, in MiB; nil leaves that to the policy.
  public var memory: Int?

  public init(name: String, token: [UInt8] = [], claims: [Claim], memory: Int? = nil) {
    self.name = name
    self.token = token
    self.claims = claims
    self.memory = memory
  }

  /// Whether a text can be the name of an instance.
  public static func isName(_ text: String) -> Bool {
    (1...maximumNameBytes).contains(text.utf8.count)
      && text.utf8.allSatisfy {
        switch $0 {
        case 48...57, 65...90, 97...122, 45, 46, 95: true
        default: false
        }
      }
  }

  /// The message.
  public var text: String {
    var text = "attach version=\(Self.version) name=\(name)"
    if !token.isEmpty { text += " token=\(Hexadecimal.text(token))" }
    if !claims.isEmpty { text += " claims=\(claims.map(\.description).joined(separator: ","))" }
    if let memory { text += " memory=\(memory)" }
    return text
  }

  /// - Parameter message: from a process that may be anybody's: everything is bounded and checked.
  public init(_ message: ControlMessage) throws(AttachError) {
    let fields = try CheckedFields(message, word: "attach")
    name = try fields.text("name")
    guard Self.isName(name) else { throw .bad(name: "name", value: name) }
    token = try fields.bytes("token", upTo: Self.maximumTokenBytes)
    claims = try Self.claims(message["claims"])
    memory = message["memory"] == nil ? nil : try fields.number("memory", in: 1...(1 << 20))
  }

  static func claims(_ list: String?) throws(AttachError) -> [Claim] {
    guard let list else { return [] }
    var claims: [Claim] = []
    for text in list.split(separator: ",", omittingEmptySubsequences: false) {
      guard let claim = Claim(String(text)), claims.count < maximumClaims else {
        throw .bad(name: "claims", value: String(text))
      }
      claims.append(claim)
    }
    return claims
  }
}

/// The supervisor's other answer: `refused reason=TEXT`, the rest of the line for people.
public struct Refusal: Sendable, Equatable {
  public var reason: String

  public init(reason: String) { self.reason = reason }

  public var text: String { "refused reason=\(reason)" }

  /// - Returns: nil where the message is no refusal.
  public init?(_ message: ControlMessage) {
    guard message.word == "refused", message.rest.hasPrefix("reason=") else { return nil }
    reason = String(message.rest.dropFirst("reason=".count).prefix(512))
  }
}

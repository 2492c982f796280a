/// How a classifier lies in memory: this header, then what its offsets say, each in bytes from the start.
struct ClassifierHeader: BitwiseCopyable {
  /// Which byte of a key each summary is for. These are the header's first bytes: they are read one by one.
  var positions: (UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8) = (
    0, 0, 0, 0, 0, 0, 0, 0
  )
  /// Words of a key that are used.
  var wordCount: UInt32 = 0
  var groupCount: UInt32 = 0
  var summaryCount: UInt32 = 0
  var definitionCount: UInt32 = 0
  var fieldCount: UInt32 = 0
  /// Most rules that are compared with one packet.
  var steps: UInt32 = 0
  var groups: Int = 0
  var definitions: Int = 0
  var fields: Int = 0
  /// 256 words for each summary.
  var summaries: Int = 0
  static let maximumSummaries = 5
}

/// Rules that ask for the same bits, by a hash of those: one look finds all of them that can match.
struct ClassifierGroup: BitwiseCopyable {
  /// Of its rules, the one that is looked at first.
  var firstRank: UInt32
  /// 0 where its rules are compared one after the other.
  var partCount: UInt32
  /// ``ClassifierHashPart``.
  var parts: Int
  /// ``ClassifierSlot``; there is one at least that is unused. Or, without hash, the first rule.
  var slots: Int
  /// A hash of 32 bits is shifted right by it to be an index.
  var shift: UInt32
  var unused: UInt32 = 0
}

/// A word's part in a hash.
struct ClassifierHashPart: BitwiseCopyable {
  var word: UInt64
  var mask: UInt64
  var factor: UInt64
}

struct ClassifierSlot: BitwiseCopyable {
  /// The hash.
  var tag: UInt32
  /// The first of the rules of this hash, in units of 16 bytes from the start; 0 where the slot is unused.
  var rules: UInt32
}

/// A rule; its ``WordTest``s follow, and then, but for the last one of a row, the next rule.
struct ClassifierRule: BitwiseCopyable {
  /// Its place in the order in which rules are looked at.
  var rank: UInt32
  /// Its place in the set.
  var index: UInt32
  var testCount: UInt32
  var isLast: UInt32
}

/// A protocol of one's own.
struct ClassifierDefinition: BitwiseCopyable {
  var type: UInt64 = 0
  var lengthMask: UInt64 = 0
  var nextMask: UInt64 = 0
  /// ``ClassifierLayer``.
  var layer: UInt8 = 0
  /// ``ClassifierNumbers``, or the protocol above whose place there are protocols.
  var nextNumbers: UInt8 = 0
  var lengthOffset: UInt8 = 0
  /// 0 where the length is ``lengthAdd``.
  var lengthBytes: UInt8 = 0
  var lengthScale: UInt8 = 0
  var lengthAdd: UInt8 = 0
  var nextOffset: UInt8 = 0
  /// 0 where nothing follows.
  var nextBytes: UInt8 = 0
  /// Place in the set.
  var header: UInt8 = 0
}

struct ClassifierField: BitwiseCopyable {
  var mask: UInt64
  var header: UInt8
  var offset: UInt8
  var byteCount: UInt8
}

/// Layers as numbers; protocols of one's own begin at ``own``.
enum ClassifierLayer {
  static let ethernet: UInt8 = 0
  static let ipv4: UInt8 = 1
  static let ipv6: UInt8 = 2
  static let udp: UInt8 = 3
  static let tcp: UInt8 = 4
  static let own: UInt8 = 16
}

/// Who gives the numbers of what follows; protocols of one's own as in ``ClassifierLayer``.
enum ClassifierNumbers {
  static let etherType: UInt8 = 0
  static let ipProtocol: UInt8 = 1
}

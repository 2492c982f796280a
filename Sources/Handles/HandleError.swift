import Glibc

/// Why the broker refuses a request. Each is counted; the raw value is its name in messages and counters.
///
/// Who is not a handle's receiver hears ``unknownHandle``, whatever is counted: a guess does not tell whether it hit.
public enum HandleRefusal: String, Error, CaseIterable, Sendable {
  /// The message makes no sense, or was cut.
  case malformed
  /// Another process than the one that connected sent the message.
  case foreignSender = "foreign-sender"
  /// The broker does not serve this user.
  case foreignUser = "foreign-user"
  /// The peer's process cannot be told.
  case noProcess = "no-process"
  /// No handle has this id or number.
  case unknownHandle = "unknown-handle"
  /// Its receiver is another user or process.
  case wrongReceiver = "wrong-receiver"
  /// Its time is over.
  case expired
  /// It was used as often as it may be.
  case usedUp = "used-up"
  /// It was revoked, or its owner has gone.
  case revoked
  /// It does not give the right to write.
  case noRight = "no-right"
  /// The access leaves the handle's range, or the range leaves the memory.
  case outOfRange = "out-of-range"
  /// A range or an access of no bytes, a use count of 0 or an expiry that has passed.
  case empty
  /// More bytes than one message carries.
  case tooLong = "too-long"
  /// The range is not one of whole pages of the memory.
  case unaligned
  /// Only a part of the memory is to be mapped: a descriptor would give all of it.
  case partOfMemory = "part-of-memory"
  /// It is served by the broker, not mapped.
  case notMapped = "not-mapped"
  /// The descriptor is no memory file.
  case notMemory = "not-memory"
  /// Somebody could shrink, grow or seal the memory; or a reader could make a writable mapping of it.
  case notSealed = "not-sealed"
  /// A reader's descriptor is open for writing.
  case writableDescriptor = "writable-descriptor"
  /// A descriptor that has to write cannot.
  case readOnlyDescriptor = "read-only-descriptor"
  /// The receiver could open the memory for writing by its owner or mode, and so cut it short.
  case receiverCouldCut = "receiver-could-cut"
  /// Memory that can be taken away has one handle at a time.
  case alreadyShared = "already-shared"
  /// Too many, too few or wrong descriptors with a message.
  case descriptors
  /// The user has as many handles, memories or connections as it may have.
  case tooMany = "too-many"
  /// The handle is another user's.
  case notOwner = "not-owner"
  /// The kernel refused the access to the memory.
  case kernel
}

/// Why an operation on a handle failed, at its user's side.
public enum HandleError: Error, Equatable, Sendable {
  /// The broker refused, and why.
  case refused(HandleRefusal)
  /// A system call failed.
  case system(call: String, errno: Int32)
  /// The broker has gone, or did not answer in time.
  case noAnswer
  /// The broker's answer makes no sense.
  case badAnswer(String)
}

extension HandleError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .refused(let reason): "the broker refuses: \(reason.rawValue)"
    case .system(let call, let errno): "\(call): \(String(cString: strerror(errno)))"
    case .noAnswer: "the broker does not answer; is `martlet handles serve` running?"
    case .badAnswer(let text): "the broker's answer makes no sense: \(text)"
    }
  }
}

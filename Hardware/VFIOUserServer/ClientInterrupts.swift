import CLinux
import EmulatedPCI
import Glibc
import PCI
import VFIOUserMessages

/// The eventfds that a client gave for its device's interrupts. Closed when they are replaced and with the client.
final class ClientInterrupts {
  private let model: EmulatedFunction
  /// MSI-X or MSI, as the model has it.
  private let messages: UInt32
  private var vectors: [Int32]
  private var line: Int32 = -1
  /// Error and request notifications, which this device never sends.
  private var silent: [UInt32: Int32] = [:]

  init(_ model: EmulatedFunction) {
    self.model = model
    messages = model.interruptKind == .msi ? InterruptIndex.msi : InterruptIndex.msix
    vectors = Array(repeating: -1, count: model.interrupts.vectorCount)
  }

  deinit { disconnect() }

  func disconnect() {
    model.interrupts.disconnectAll()
    for descriptor in vectors + [line] + silent.values where descriptor >= 0 { close(descriptor) }
    vectors = Array(repeating: -1, count: vectors.count)
    line = -1
    silent = [:]
  }

  func info(_ index: UInt32) -> InterruptInfoMessage? {
    typealias Info = InterruptInfoMessage
    switch index {
    case InterruptIndex.intx:
      return Info(flags: Info.eventfd | Info.maskable | Info.automasked, index: index, count: 1)
    case messages:
      return Info(flags: Info.eventfd | Info.maskable, index: index, count: UInt32(vectors.count))
    case InterruptIndex.msi, InterruptIndex.msix: return Info(index: index)
    case InterruptIndex.error, InterruptIndex.request:
      return Info(flags: Info.eventfd, index: index, count: 1)
    default: return nil
    }
  }

  /// - Returns: 0 or an errno.
  func set(_ message: SetInterruptsMessage, _ descriptors: inout ReceivedDescriptors) -> Int32 {
    guard let info = info(message.index) else { return EINVAL }
    if message.data != .eventfd && descriptors.sent > 0 { return EINVAL }
    if message.count == 0 {
      guard message.data == .none, message.action == .trigger, message.start == 0 else {
        return EINVAL
      }
      disable(message.index)
      return 0
    }
    let (end, wraps) = message.start.addingReportingOverflow(message.count)
    guard !wraps, end <= info.count else { return EINVAL }
    let range = Int(message.start)..<Int(end)
    switch (message.data, message.action) {
    case (.eventfd, .trigger): return connect(message.index, range, &descriptors)
    case (.eventfd, _): return ENOTSUP
    case (_, .trigger):
      guard info.flags & InterruptInfoMessage.maskable != 0 else { return ENOTSUP }
    case (_, _): guard info.flags & InterruptInfoMessage.maskable != 0 else { return ENOTSUP }
    }
    for (position, vector) in range.enumerated()
    where message.data == .none || message.booleans[position] {
      apply(message.action, message.index, vector)
    }
    return 0
  }

  private func apply(_ action: SetInterruptsMessage.Action, _ index: UInt32, _ vector: Int) {
    if index == messages {
      switch action {
      case .mask: model.interrupts.setMasked(vector, true)
      case .unmask: model.interrupts.setMasked(vector, false)
      case .trigger: model.interrupts.trigger(vector)
      }
    } else {
      switch action {
      case .mask: model.interrupts.setLineMasked(true)
      case .unmask: model.interrupts.setLineMasked(false)
      case .trigger: if line >= 0 { Self.signal(line) }
      }
    }
  }

  private static func signal(_ eventfd: Int32) {
    var entry = pollfd(fd: eventfd, events: Int16(POLLOUT), revents: 0)
    // A counter at its limit would block the writer for as long as its owner likes.
    guard poll(&entry, 1, 0) == 1, entry.revents & Int16(POLLOUT) != 0 else { return }
    var one: UInt64 = 1
    _ = write(eventfd, &one, 8)
  }

  private func connect(
    _ index: UInt32, _ range: Range<Int>, _ descriptors: inout ReceivedDescriptors
  ) -> Int32 {
    // None at all takes the vectors' eventfds away.
    guard
      descriptors.sent == 0 || descriptors.sent == range.count && descriptors.count == range.count
    else { return EINVAL }
    for position in 0..<descriptors.count where !Self.isEventfd(descriptors.peek(position)) {
      return EINVAL
    }
    let takesAway = descriptors.sent == 0
    for (position, vector) in range.enumerated() {
      let descriptor = takesAway ? -1 : descriptors.take(position)
      switch index {
      case messages:
        model.interrupts.connect(vector, -1)
        if vectors[vector] >= 0 { close(vectors[vector]) }
        vectors[vector] = descriptor
        model.interrupts.setMasked(vector, false)
        model.interrupts.connect(vector, descriptor)
      case InterruptIndex.intx:
        model.interrupts.connectLine(-1)
        if line >= 0 { close(line) }
        line = descriptor
        model.interrupts.connectLine(descriptor)
      default:
        if let old = silent.removeValue(forKey: index) { close(old) }
        if descriptor >= 0 { silent[index] = descriptor }
      }
    }
    // As with the kernel's VFIO, connecting them turns them on: a client need not write the capability as well.
    if index == messages, !takesAway { model.setMessageInterrupts(true) }
    return 0
  }

  private func disable(_ index: UInt32) {
    switch index {
    case messages:
      for vector in vectors.indices {
        model.interrupts.connect(vector, -1)
        model.interrupts.setMasked(vector, false)
        if vectors[vector] >= 0 { close(vectors[vector]) }
        vectors[vector] = -1
      }
      model.setMessageInterrupts(false)
    case InterruptIndex.intx:
      model.interrupts.connectLine(-1)
      if line >= 0 { close(line) }
      line = -1
    default: if let old = silent.removeValue(forKey: index) { close(old) }
    }
  }

  /// Whether a descriptor is an eventfd, as far as the kernel says: writing to anything else could change a file or
  /// block.
  static func isEventfd(_ descriptor: Int32) -> Bool {
    var status = stat()
    guard descriptor >= 0, fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == 0 else {
      return false
    }
    return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { target in
      let count = readlink("/proc/self/fd/\(descriptor)", target.baseAddress!, 63)
      // Without /proc the type alone has to do: it tells files, sockets and devices apart.
      guard count > 0 else { return true }
      target[count] = 0
      return String(cString: target.baseAddress!) == "anon_inode:[eventfd]"
    }
  }
}

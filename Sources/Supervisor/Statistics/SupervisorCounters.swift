import Channel
import Memory

/// What the supervisor itself counts, in a page that others read. Names get their entries in the order in which they first
/// appear. One thread.
final class SupervisorCounters {
  private let page: CounterPage
  private var places: [String: Int] = [:]

  /// Names beyond that are left out.
  private static let capacity = 512

  init() throws(SupervisorError) {
    page = try asInput { () throws(MemoryError) -> CounterPage in
      try CounterPage(capacity: Self.capacity)
    }
  }

  /// Shows the values of these, and no others.
  func publish(_ counters: [(name: String, value: UInt64)]) {
    var shown = Set<String>()
    for (name, value) in counters {
      shown.insert(name)
      guard let place = place(of: name) else { continue }
      page.set(place, value)
    }
    for (name, place) in places where !shown.contains(name) {
      page.name(place, "")
      places[name] = nil
    }
  }

  private func place(of name: String) -> Int? {
    if let place = places[name] { return place }
    let used = Set(places.values)
    guard let free = (0..<Self.capacity).first(where: { !used.contains($0) }) else { return nil }
    places[name] = free
    page.name(free, name)
    return free
  }

  func add(to handout: inout CounterHandout) { handout.add(page, "of=supervisor") }
}

import Channel
import Glibc
import PCI
import VFIO

/// Passes on to a vfio-user device what memory it may read: it has one socket, which is the host's while it runs, so the
/// supervisor says it here. `map id= iova= bytes= [from=]` with the memory, `unmap id= iova= bytes=`; answers
/// `mapped`, `unmapped` or `refused`, with `iova=` too.
struct DeviceMaps {
  let function: any PCIFunction
  let supervisor: SupervisorSocket

  /// - Returns: whether the message was about that; its descriptors are closed then.
  func take(_ message: ControlMessage, _ descriptors: [Int32]) -> Bool {
    guard message.word == "map" || message.word == "unmap" else { return false }
    defer { for descriptor in descriptors { close(descriptor) } }
    let id = message["id"] ?? "?"
    guard let device = function as? VFIOUserFunction, let iova: UInt64 = message.number("iova"),
      let byteCount: UInt64 = message.number("bytes"),
      descriptors.count == (message.word == "map" ? 1 : 0)
    else {
      let place = message["iova"].map { " iova=\($0)" } ?? ""
      supervisor.say("refused id=\(id) what=\(message.word)\(place) reason=not_understood")
      return true
    }
    do throws(PCIError) {
      if message.word == "map" {
        try device.mapDMA(
          descriptors[0], from: message.number("from") ?? 0, iova: iova, byteCount: byteCount,
          rights: .read)
      } else {
        try device.unmapDMA(iova: iova, byteCount: byteCount)
      }
      supervisor.say("\(message.word)ped id=\(id) iova=\(iova)")
    } catch {
      let reason = "\(error)".replacing(" ", with: "_")
      supervisor.say("refused id=\(id) what=\(message.word) iova=\(iova) reason=\(reason)")
    }
    return true
  }
}

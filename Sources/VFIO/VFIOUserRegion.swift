import CLinux
import Glibc
import PCI
import VFIOUserMessages

/// A region of a vfio-user device, with those parts of it mapped that the server lets be mapped.
final class VFIOUserRegion {
  let byteCount: UInt64
  let isReadWrite: Bool
  private(set) var mappedAreas: [RegisterRegion.MappedArea] = []

  /// Bytes that are asked for at first, and most that a longer answer may have.
  private static let firstReply: UInt32 = 1024
  private static let largestReply: UInt32 = 65536

  init(_ index: UInt32, _ connection: VFIOUserConnection) throws(PCIError) {
    var room = Self.firstReply
    while true {
      let request = RegionInfoMessage(argumentSize: room, index: index)
      var reply = try connection.exchange(.regionInfo, request.command)
      let info: RegionInfoMessage
      do {
        info = try RegionInfoMessage(reply.payload)
      } catch {
        throw connection.broken("\(error)")
      }
      guard info.index == index else { throw connection.broken("it answered for another region") }
      // Once: a server might want more each time.
      if room == Self.firstReply, info.argumentSize > room, info.argumentSize <= Self.largestReply {
        room = info.argumentSize
        continue
      }
      byteCount = info.size
      let both = RegionInfoMessage.readable | RegionInfoMessage.writable
      isReadWrite = info.flags & both == both
      if info.flags & RegionInfoMessage.mappable != 0 {
        let descriptor = reply.descriptors.take(0)
        defer { if descriptor >= 0 { close(descriptor) } }
        map(info, descriptor)
      }
      return
    }
  }

  /// Maps what can be mapped safely; everything else goes by message. A file that the server could make shorter would
  /// end this process with SIGBUS at the next access, so that only one sealed against it is mapped; and none of huge pages,
  /// which run out where it punches holes.
  private func map(_ info: RegionInfoMessage, _ descriptor: Int32) {
    guard descriptor >= 0, isReadWrite else { return }
    let seals = linux_fcntl(descriptor, LINUX_F_GET_SEALS, 0)
    var status = stat()
    guard seals >= 0, seals & LINUX_F_SEAL_SHRINK != 0, linux_fstat(descriptor, &status) == 0,
      status.st_blksize < 1 << 21
    else { return }
    let page = UInt64(sysconf(Int32(_SC_PAGESIZE)))
    let fileSize = UInt64(max(0, status.st_size))
    let areas =
      info.sparseAreas.isEmpty
      ? [RegionInfoMessage.Area(offset: 0, size: info.size)] : info.sparseAreas
    for area in areas {
      let (end, wraps) = area.offset.addingReportingOverflow(area.size)
      let (start, startWraps) = info.offset.addingReportingOverflow(area.offset)
      let (fileEnd, fileEndWraps) = info.offset.addingReportingOverflow(end)
      guard !wraps, !startWraps, !fileEndWraps, area.size > 0, end <= info.size,
        fileEnd <= fileSize, start % page == 0, area.size % page == 0,
        let address = linux_mmap(
          nil, Int(area.size), PROT_READ | PROT_WRITE, Int32(MAP_SHARED), descriptor,
          off_t(start))
      else { continue }
      mappedAreas.append(.init(offset: area.offset, byteCount: area.size, address: address))
    }
  }

  deinit {
    for area in mappedAreas { munmap(area.address, Int(area.byteCount)) }
  }
}

import CLinux
import Glibc

/// What the running kernel can do and what this process may do, asked of the kernel itself.
public struct KernelFacts: Sendable {
  /// Version of Landlock's interface, or the negative errno.
  public var landlock: Int32
  /// Memory files of huge pages can be made.
  public var hasHugepageMemory: Bool
  public var hasProcessDescriptors: Bool
  public var hasClone3: Bool
  /// 0 where this process can make a user namespace, or the errno.
  public var userNamespace: Int32
  public var isRoot: Bool
  /// Bytes; UInt64.max for no limit.
  public var lockedMemoryLimit: UInt64
  /// VFIO has the type 1 IOMMU interface; nil where its container could not be opened.
  public var hasType1: Bool?

  public static func read() -> KernelFacts {
    let memory = linux_memfd_create("probe", LINUX_MFD_CLOEXEC | LINUX_MFD_HUGETLB)
    if memory >= 0 { close(memory) }
    let process = linux_pidfd_open(getpid())
    if process >= 0 { close(process) }
    var type1: Bool?
    let container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC)
    if container >= 0 {
      type1 =
        linux_ioctl_value(container, LINUX_VFIO_CHECK_EXTENSION, UInt(VFIO_TYPE1v2_IOMMU)) > 0
      close(container)
    }
    return KernelFacts(
      landlock: linux_landlock_version(), hasHugepageMemory: memory >= 0,
      hasProcessDescriptors: process >= 0, hasClone3: linux_has_clone3() != 0,
      userNamespace: -linux_try_user_namespace(), isRoot: geteuid() == 0,
      lockedMemoryLimit: linux_locked_memory_limit(), hasType1: type1)
  }
}

import CLinux
import Channel
import Confinement
import Glibc

/// Before a driver host touches its device: what it is called, what it gives up, and for how long it waits.
extension DriverHost {
  /// What the kernel shows as the process's name, whatever its program is called.
  public static let name = "martlet-host"
  /// The same of one that stands by.
  public static let standbyName = "martlet-standby"

  static func showName(_ name: String) {
    _ = name.withCString { linux_prctl(PR_SET_NAME, UInt(bitPattern: $0), 0, 0, 0) }
  }

  /// Waits until the host before has ended.
  /// - Parameter device: the number that its descriptor will have, the only socket but one that it may use.
  static func standBy(
    _ supervisor: SupervisorSocket, for device: Int32
  ) throws(HostError) {
    while true {
      switch supervisor.await(milliseconds: -1) {
      case .nothing: continue
      case .instance(let message, let descriptors)
      where message.word == "begin" && descriptors == [device]:
        return
      default: throw .arguments("it stands by, and is not needed")
      }
    }
  }

  /// Gives up all rights and makes the queue threads.
  static func confine(
    _ arguments: HostArguments, _ device: Int32
  ) throws(HostError) -> ([QueueThread], ConfinedHost?) {
    var confined = arguments.isConfined ? Self.confined(arguments, device) : nil
    if confined != nil {
      try confining { () throws(ConfinementError) in
        confined?.landlockVersion = try Confinement.enter(reportingTo: Inherited.control)
      }
    }
    // One heap for all threads: the C library reads a file of /proc before it shrinks a thread's own.
    linux_use_one_heap()
    // Each thread has capability sets of its own: they are made of a thread that has none left.
    var threads: [QueueThread] = []
    for queue in 0..<arguments.queues {
      let core = arguments.cores.isEmpty ? nil : arguments.cores[queue]
      threads.append(try QueueThread(queue: queue, core: core))
    }
    if let confined {
      try confining { () throws(ConfinementError) in try Confinement.close(confined) }
    }
    return (threads, confined)
  }

  /// What its confinement depends on.
  static func confined(_ arguments: HostArguments, _ device: Int32) -> ConfinedHost {
    let access: ConfinedHost.Access =
      switch arguments.access {
      case .vfio: .kernelVFIO
      case .vfioUser: .messages
      case .vhostUser: .replacedSocket
      }
    return ConfinedHost(
      control: Inherited.control, device: device, access: access,
      instanceDoorbell: Inherited.instanceDoorbell, isShared: arguments.isShared)
  }
}

import Channel
import Glibc

/// What an administrator asks for by `restart [program=]`: another driver host, and perhaps another program for it.
struct RestartRequest {
  /// nil for the same as before.
  let program: String?

  /// - Parameter uid: of who asks, as the kernel says.
  /// - Throws: why it is not done, in one line.
  init(_ message: ControlMessage, uid: uid_t) throws(SupervisorError) {
    program = message["program"]
    guard let program else { return }
    // It gets the device, and is started by this process.
    guard uid == geteuid() || uid == 0 else {
      throw .input("another program may be named by root and by user \(geteuid()) only")
    }
    guard program.hasPrefix("/"), access(program, X_OK) == 0 else {
      throw .input("\(program) is no program")
    }
  }
}

extension PeerConnection {
  /// Names and values, as many in each message as it takes.
  func say(statistics values: [(name: String, value: UInt64)]) {
    var text = "stats"
    for (name, value) in values {
      let pair = " \(name)=\(value)"
      if text.utf8.count + pair.utf8.count > ControlMessage.maximumBytes {
        say(text)
        text = "stats"
      }
      text += pair
    }
    say(text)
    say("end")
  }

  /// That another driver host is in place, and what it took, in microseconds.
  func say(_ restart: HostRestart?, host: pid_t) {
    let parts = restart?.parts.map {
      " \($0.name.replacing(" ", with: "-"))=\($0.nanoseconds / 1000)"
    }
    say("restarted pid=\(host)" + (parts ?? []).joined())
    say("end")
  }
}

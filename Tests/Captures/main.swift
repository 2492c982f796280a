import Glibc
import PlainClassifier
import Steering
import Synchronization

/// Packets of captures through rule sets that change meanwhile, each against the plain classifier.
/// Arguments: packets for each number of rules, frames that are looked at, capture files.
let arguments = CommandLine.arguments.dropFirst()
guard let packets = arguments.first.flatMap({ Int($0) }), packets > 0,
  let maximum = arguments.dropFirst().first.flatMap({ Int($0) }), maximum > 0, arguments.count > 2
else {
  print("usage: martlet-steering-captures PACKETS FRAMES FILE...")
  exit(64)
}
let captures = CaptureFrames(Array(arguments.dropFirst(2)), maximum: maximum)
print(
  "\(captures.frames.count) different frames of \(captures.files) files; \(captures.unreadable) cannot be read"
)
guard captures.frames.count > 100 else {
  print("too few frames")
  exit(1)
}
do {
  for count in [1, 100, 10_000] {
    try CaptureRun(captures.frames, rules: count).run(packets: packets)
  }
} catch {
  print(error)
  exit(1)
}

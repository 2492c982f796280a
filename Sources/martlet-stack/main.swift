import Glibc
import Stacks

#if canImport(LwIPStack)
  import LwIPStack
#endif

/// A stack instance: an ordinary process on a channel, with one stack.
func run(
  _ arguments: InstanceArguments, in environment: InstanceEnvironment
) throws(StackError) -> Int32 {
  let channel = InstanceChannel(environment)
  switch arguments.stack {
  case "kernel":
    let stack = try KernelStack(environment, channel: channel, tap: arguments.tap)
    var loop = InstanceLoop(stack: stack, channel: channel, mode: arguments.mode)
    return try loop.run()
  case "sink":
    var loop = InstanceLoop(
      stack: SinkStack(environment, channel: channel), channel: channel, mode: arguments.mode)
    return try loop.run()
  #if canImport(LwIPStack)
    case "lwip":
      let stack = try LwIPInstance(environment, arguments, channel: channel)
      var loop = InstanceLoop(stack: stack, channel: channel, mode: arguments.mode)
      return try loop.run()
  #endif
  default:
    throw StackError(
      "this build has no stack named \(arguments.stack); lwip needs `make setup` before the build")
  }
}

do throws(StackError) {
  // The supervisor hears of wrong arguments too.
  let environment = try InstanceEnvironment.inherited()
  let code = try environment.run { () throws(StackError) -> Int32 in
    try run(InstanceArguments(Array(CommandLine.arguments.dropFirst())), in: environment)
  }
  exit(code)
} catch {
  // The supervisor of `martlet run` says it for us.
  if getenv("MARTLET_SOCKET") != nil {
    let line = Array("martlet-stack: \(error)\n".utf8)
    _ = write(STDERR_FILENO, line, line.count)
  }
  exit(1)
}

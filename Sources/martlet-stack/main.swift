import GVisorStack
import Stacks

#if canImport(LwIPStack)
  import LwIPStack
  let lwip = InstalledStack("lwip", LwIPInstance.init)
#else
  let lwip = InstalledStack("lwip", isMissing: "lwip needs `make setup` before the build")
#endif

InstanceProgram.main([
  InstalledStack("kernel", KernelStack.init),
  lwip,
  InstalledStack("gvisor", GVisorInstance.init),
  InstalledStack("sink", SinkStack.init),
])

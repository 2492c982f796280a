import EmulatedPCI

/// Interrupts (82574 datasheet, 7.4 and 10.2.4).
extension E1000eDevice {
  /// Sets causes; what is unmasked goes out as its vector or the line allows.
  func raise(_ causes: UInt32) {
    interruptState.causes |= causes
    deliverInterrupts()
  }

  /// Something that OTHER stands for is set and unmasked: OTHER is set with its rise.
  private func gatherOthers() {
    let others = interruptState.causes & interruptState.mask & Cause.others
    if others & ~interruptState.seen != 0 { interruptState.causes |= Cause.other }
  }

  func deliverInterrupts() {
    gatherOthers()
    let asserted = interruptState.causes & interruptState.mask
    interruptState.waiting |= asserted & ~interruptState.seen
    interruptState.waiting &= asserted
    interruptState.seen = asserted
    if usesMessages {
      sendMessages()
      setLine(false)
    } else {
      interruptState.waiting = 0
      updateLine(asserted != 0)
    }
  }

  /// MSI-X is in use where its capability says so, or where IVAR names a vector: who reaches the model in process
  /// connects vectors without writing the capability.
  private var usesMessages: Bool {
    interrupts.isEnabled
      || Cause.vectors.contains { self[Register.ivar] >> $0.shift & 8 != 0 }
  }

  private func sendMessages() {
    let ivar = self[Register.ivar]
    for (cause, shift) in Cause.vectors where interruptState.waiting & cause != 0 {
      let vector = Int(ivar >> shift & 7)
      guard ivar >> shift & 8 != 0, vector < InterruptState.vectorCount else {
        interruptState.waiting &= ~cause
        continue
      }
      if now < interruptState.vectorQuietUntil[vector] { continue }
      interruptState.vectorQuietUntil[vector] =
        now + UInt64(self[Register.eitr + 4 * vector] & 0xffff) * 256
      interruptState.waiting &= ~cause
      signal { $0.trigger(vector) }
      // EIAC clears the cause and masks it; EIAME masks what IAM says.
      let cleared = cause & self[Register.eiac]
      interruptState.causes &= ~cleared
      interruptState.mask &= ~cleared
      if self[Register.ctrlExt] & CtrlExt.messageMasks != 0 {
        interruptState.mask &= ~(self[Register.iam] & cause)
      }
    }
    interruptState.seen = interruptState.causes & interruptState.mask
    interruptState.waiting &= interruptState.seen
  }

  private func updateLine(_ up: Bool) {
    let isDisabled = configuration.read(at: 4, byteCount: 2) & 0x0400 != 0
    if !up || isDisabled {
      setLine(false)
    } else if !interruptState.lineIsUp && now >= interruptState.lineQuietUntil {
      interruptState.lineQuietUntil = now + UInt64(self[Register.itr] & 0xffff) * 256
      interruptState.lineIsUp = true
      signal { $0.setLine(true) }
    }
  }

  private func setLine(_ up: Bool) {
    interruptState.lineIsUp = up
    interrupts.setLine(up)
  }

  private func signal(_ body: (inout InterruptController) -> Void) {
    statistics.count(Statistics.interruptsAsserted)
    if interruptsToLose > 0 {
      interruptsToLose -= 1
      counters.lostInterrupts += 1
    } else {
      counters.interrupts += 1
      body(&interrupts)
    }
  }

  func stormInterrupts() {
    for _ in 0..<stormingInterrupts {
      for vector in 0..<InterruptState.vectorCount { interrupts.trigger(vector) }
      interrupts.setLine(true)
      counters.interrupts += 1
    }
    interrupts.setLine(interruptState.lineIsUp)
  }

  // MARK: Timers

  /// Interrupts that time alone will bring.
  var hasTimers: Bool {
    if interruptState.receive.causes != 0 || interruptState.transmit.causes != 0 { return true }
    if usesMessages { return interruptState.waiting != 0 }
    return interruptState.seen != 0 && !interruptState.lineIsUp
      && now < interruptState.lineQuietUntil
  }

  func runTimers() -> Bool {
    let had = hasTimers
    if !had { return false }
    let due = interruptState.receive.expire(now) | interruptState.transmit.expire(now)
    interruptState.causes |= due
    deliverInterrupts()
    return true
  }

  /// Frames were written to the driver's buffers (7.1.9).
  func raiseReceive(_ causes: UInt32) {
    let delay = self[Register.rdtr] & 0xffff
    if delay == 0 {
      raise(causes)
    } else {
      interruptState.receive.add(
        causes, now: now, delay: delay, limit: self[Register.radv] & 0xffff)
    }
  }

  /// Transmit descriptors were written back, and asked for the delay (IDE).
  func raiseTransmitLater(_ causes: UInt32) {
    let delay = self[Register.tidv] & 0xffff
    if delay == 0 { violations.add("10.2.6", "IDE in a descriptor, and a TIDV of 0") }
    interruptState.transmit.add(
      causes, now: now, delay: delay, limit: self[Register.tadv] & 0xffff)
  }

  // MARK: Registers

  /// Reading ICR clears it where an interrupt is asserted or none is enabled (10.2.4).
  func readCauses() -> UInt32 {
    let asserted = interruptState.causes & interruptState.mask != 0
    let value = interruptState.causes | (asserted ? Cause.asserted : 0)
    if asserted || interruptState.mask == 0 { acknowledge(.max) }
    return value
  }

  func acknowledge(_ causes: UInt32) {
    interruptState.causes &= ~causes
    if self[Register.ctrlExt] & CtrlExt.accessMasks != 0 {
      interruptState.mask &= ~self[Register.iam]
    }
    deliverInterrupts()
  }

  func writeInterruptRegister(_ offset: Int, _ value: UInt32) {
    switch offset {
    case Register.icr: acknowledge(value)
    case Register.ics: raise(value & Cause.defined)
    case Register.ims:
      interruptState.mask |= value & Cause.defined
      deliverInterrupts()
    case Register.imc:
      interruptState.mask &= ~value
      deliverInterrupts()
    case Register.ivar: writeVectors(value)
    default: self[offset] = value
    }
  }

  private func writeVectors(_ value: UInt32) {
    for (_, shift) in Cause.vectors where value >> shift & 8 != 0 {
      let vector = Int(value >> shift & 7)
      if vector >= InterruptState.vectorCount {
        violations.add("10.2.4", "IVAR names vector \(vector) of \(InterruptState.vectorCount)")
      }
    }
    self[Register.ivar] = value
  }
}

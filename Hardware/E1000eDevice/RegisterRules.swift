/// What software may do with a register: the datasheet's table in 10.2.1, and the reserved bits of each description.
struct RegisterRule: Sendable {
  enum Access: Sendable { case readWrite, readOnly, writeOnly, readClears }

  var name: String
  /// Where the 82574 datasheet describes it.
  var section: String
  var access: Access
  /// Bits that are to be written as 0.
  var reserved: UInt32 = 0
  /// Value after a reset.
  var initial: UInt32 = 0

  static let table: [Int: RegisterRule] = {
    var all: [Int: RegisterRule] = [:]
    func add(
      _ offset: Int, _ name: String, _ section: String, _ access: Access = .readWrite,
      reserved: UInt32 = 0, initial: UInt32 = 0
    ) {
      all[offset] = RegisterRule(
        name: name, section: section, access: access, reserved: reserved, initial: initial)
    }
    addGeneral(add)
    addInterrupts(add)
    addReceive(add)
    addTransmit(add)
    for (offset, name) in Statistics.names { add(offset, name, "10.2.7", .readClears) }
    return all
  }()

  /// What is looked at with every access; the names only where one is wrong.
  struct Limits: Sendable {
    var access: Access
    var reserved: UInt32
  }

  private static let limits: [Limits?] = {
    var all = [Limits?](repeating: nil, count: Int(E1000eDevice.registerBytes) / 4)
    for (offset, rule) in table {
      all[offset / 4] = Limits(access: rule.access, reserved: rule.reserved)
    }
    return all
  }()

  /// Of the register at an offset, a multiple of 4 inside the BAR.
  static func limits(at offset: Int) -> Limits? { limits[offset / 4] }

  private typealias Add = (
    _ offset: Int, _ name: String, _ section: String, _ access: Access, _ reserved: UInt32,
    _ initial: UInt32
  ) -> Void

  private static func addGeneral(_ add: Add) {
    add(Register.ctrl, "CTRL", "10.2.2", .readWrite, 0x2000_0402, Ctrl.fullDuplex | Ctrl.speed1000)
    add(Register.status, "STATUS", "10.2.2", .readOnly, 0, 0)
    // EE_PRES and Auto_RD.
    add(Register.eec, "EEC", "10.2.2", .readWrite, 0, 0x300)
    add(Register.eerd, "EERD", "10.2.2", .readWrite, 0, 0)
    add(Register.ctrlExt, "CTRL_EXT", "10.2.2", .readWrite, 0, 0)
    add(Register.mdic, "MDIC", "10.2.2", .readWrite, 0x8000_0000, 1 << 28)
    add(0x00028, "FCAL", "10.2.2", .readWrite, 0, 0x00c2_8001)
    add(0x0002c, "FCAH", "10.2.2", .readWrite, 0xffff_0000, 0x100)
    add(0x00030, "FCT", "10.2.2", .readWrite, 0xffff_0000, 0x8808)
    add(Register.vet, "VET", "10.2.2", .readWrite, 0xffff_0000, 0x8100)
    add(0x00170, "FCTTV", "10.2.2", .readWrite, 0xffff_0000, 0)
    add(0x00e00, "LEDCTL", "10.2.2", .readWrite, 0, 0x0706_8302)
    add(Register.extcnfCtrl, "EXTCNF_CTRL", "10.2.2", .readWrite, 0, 0)
    // 20 KB each for receive and transmit.
    add(Register.pba, "PBA", "10.2.2", .readWrite, 0, 0x0014_0014)
    add(0x05b00, "GCR", "10.2.3", .readWrite, 0, 0)
    add(0x05b30, "FACTPS", "10.2.3", .readOnly, 0, 0)
    add(Register.swsm, "SWSM", "10.2.3", .readWrite, 0xffff_fff0, 0)
    add(Register.fwsm, "FWSM", "10.2.3", .readOnly, 0, 0)
    add(0x05b64, "GCR2", "10.2.3", .readWrite, 0, 0)
    add(0x05800, "WUC", "10.2.8", .readWrite, 0, 0)
    add(0x05808, "WUFC", "10.2.8", .readWrite, 0, 0)
    add(0x05820, "MANC", "10.2.8", .readWrite, 0, 0)
    add(0x05860, "MANC2H", "10.2.8", .readWrite, 0, 0)
  }

  private static func addInterrupts(_ add: Add) {
    let causes = ~Cause.defined
    add(Register.icr, "ICR", "10.2.4", .readWrite, 0, 0)
    add(Register.itr, "ITR", "10.2.4", .readWrite, 0xffff_0000, 0)
    add(Register.ics, "ICS", "10.2.4", .writeOnly, causes, 0)
    add(Register.ims, "IMS", "10.2.4", .readWrite, causes, 0)
    add(Register.imc, "IMC", "10.2.4", .writeOnly, 0, 0)
    add(Register.eiac, "EIAC", "10.2.4", .readWrite, ~(0x1f << 20), 0)
    add(Register.iam, "IAM", "10.2.4", .readWrite, 0, 0)
    add(Register.ivar, "IVAR", "10.2.4", .readWrite, 0x7ff0_0000, 0)
    for vector in 0..<5 {
      add(Register.eitr + 4 * vector, "EITR[\(vector)]", "10.2.4", .readWrite, 0xffff_0000, 0)
    }
  }

  private static func addReceive(_ add: Add) {
    add(Register.rctl, "RCTL", "10.2.5", .readWrite, 0x8120_4001, 0)
    add(Register.psrctl, "PSRCTL", "10.2.5", .readWrite, 0xc0c0_c080, 0x0004_0402)
    add(Register.fcrtl, "FCRTL", "10.2.5", .readWrite, 0x7fff_0007, 0)
    add(Register.fcrth, "FCRTH", "10.2.5", .readWrite, 0x7fff_0007, 0)
    add(Register.rdtr, "RDTR", "10.2.5", .readWrite, 0x7fff_0000, 0)
    add(Register.radv, "RADV", "10.2.5", .readWrite, 0xffff_0000, 0)
    add(0x02c00, "RSRPD", "10.2.5", .readWrite, 0xffff_f000, 0)
    add(0x02c08, "RAID", "10.2.5", .readWrite, 0xffff_0000, 0)
    for queue in 0..<2 {
      let at = Register.queueStride * queue
      add(Register.rdbal + at, "RDBAL\(queue)", "10.2.5", .readWrite, 0xf, 0)
      add(Register.rdbah + at, "RDBAH\(queue)", "10.2.5", .readWrite, 0, 0)
      add(Register.rdlen + at, "RDLEN\(queue)", "10.2.5", .readWrite, 0xfff0_007f, 0)
      add(Register.rdh + at, "RDH\(queue)", "10.2.5", .readWrite, 0xffff_0000, 0)
      add(Register.rdt + at, "RDT\(queue)", "10.2.5", .readWrite, 0xffff_0000, 0)
      add(Register.rxdctl + at, "RXDCTL\(queue)", "10.2.5", .readWrite, 0xfec0_c0c0, 1 << 16)
    }
    add(Register.rxcsum, "RXCSUM", "10.2.5", .readWrite, 0xffff_c400, 0)
    add(Register.rfctl, "RFCTL", "10.2.5", .readWrite, 0xfffc_0000, 0)
    for index in 0..<128 { add(Register.mta + 4 * index, "MTA", "10.2.5", .readWrite, 0, 0) }
    for index in 0..<16 {
      add(Register.ral + 8 * index, "RAL[\(index)]", "10.2.5", .readWrite, 0, 0)
      add(Register.rah + 8 * index, "RAH[\(index)]", "10.2.5", .readWrite, 0x7ffc_0000, 0)
    }
    for index in 0..<128 { add(Register.vfta + 4 * index, "VFTA", "10.2.5", .readWrite, 0, 0) }
    add(Register.mrqc, "MRQC", "10.2.5", .readWrite, 0xffe0_fffc, 0)
    for index in 0..<32 { add(Register.reta + 4 * index, "RETA", "10.2.5", .readWrite, 0, 0) }
    for index in 0..<10 { add(Register.rssrk + 4 * index, "RSSRK", "10.2.5", .readWrite, 0, 0) }
  }

  private static func addTransmit(_ add: Add) {
    add(Register.tctl, "TCTL", "10.2.6", .readWrite, 0x8000_0005, 0)
    add(Register.tipg, "TIPG", "10.2.6", .readWrite, 0xc000_0000, 0x0060_2006)
    add(0x00458, "AIT", "10.2.6", .readWrite, 0xffff_0000, 0)
    add(Register.tidv, "TIDV", "10.2.6", .readWrite, 0x7fff_0000, 0)
    add(Register.tadv, "TADV", "10.2.6", .readWrite, 0xffff_0000, 0)
    for queue in 0..<2 {
      let at = Register.queueStride * queue
      add(Register.tdbal + at, "TDBAL\(queue)", "10.2.6", .readWrite, 0xf, 0)
      add(Register.tdbah + at, "TDBAH\(queue)", "10.2.6", .readWrite, 0, 0)
      add(Register.tdlen + at, "TDLEN\(queue)", "10.2.6", .readWrite, 0xfff0_007f, 0)
      add(Register.tdh + at, "TDH\(queue)", "10.2.6", .readWrite, 0xffff_0000, 0)
      add(Register.tdt + at, "TDT\(queue)", "10.2.6", .readWrite, 0xffff_0000, 0)
      add(Register.txdctl + at, "TXDCTL\(queue)", "10.2.6", .readWrite, 0, 0)
      add(Register.tarc + at, "TARC\(queue)", "10.2.6", .readWrite, 0, 0x403)
    }
  }
}

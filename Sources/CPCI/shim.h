// libpci, as far as Swift cannot call it: its errors end in a function that must not return, and its names come from
// a variadic one. Only reads.
#pragma once
#include <pci/pci.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

struct libpci_function {
  int domain;
  unsigned bus, device, function;
  unsigned vendor_identifier, device_identifier;
  unsigned class_code;  // base class and subclass, 16 bits
  char vendor_name[96], device_name[128], class_name[96];
};

// Inside a function, as Swift's importer leaves thread-local variables of a file out.
static jmp_buf *libpci_failure(void) { static __thread jmp_buf buffer; return &buffer; }
static void libpci_fail(char *message, ...) { (void)message; longjmp(*libpci_failure(), 1); }
static void libpci_ignore(char *message, ...) { (void)message; }

/// Fills `functions` with what libpci finds below `sysfs` (such as "/sys/bus/pci"), names from its database included
/// (empty where it has none). Returns how many there are, at most `capacity`, or -1 where libpci gives up; the little
/// that it has allocated by then is lost.
__attribute__((noinline)) static int libpci_functions(const char *_Nonnull sysfs, struct libpci_function *_Nonnull functions, int capacity) {
  struct pci_access *volatile access = pci_alloc();
  volatile int count = 0;
  access->error = (__typeof__(access->error))(void *)libpci_fail;
  access->warning = libpci_ignore;
  access->debug = libpci_ignore;
  if (setjmp(*libpci_failure())) return -1;
  access->method = PCI_ACCESS_SYS_BUS_PCI;
  pci_set_param(access, (char *)"sysfs.path", (char *)sysfs);
  pci_init(access);
  pci_scan_bus(access);
  for (struct pci_dev *d = access->devices; d && count < capacity; d = d->next) {
    struct libpci_function *f = &functions[count];
    memset(f, 0, sizeof *f);
    pci_fill_info(d, PCI_FILL_IDENT | PCI_FILL_CLASS);
    f->domain = d->domain;
    f->bus = d->bus;
    f->device = d->dev;
    f->function = d->func;
    f->vendor_identifier = d->vendor_id;
    f->device_identifier = d->device_id;
    f->class_code = d->device_class;
    // It answers either in the buffer, with a text of its own, or with NULL.
    char name[256];
    const char *text;
    text = pci_lookup_name(access, name, sizeof name, PCI_LOOKUP_VENDOR | PCI_LOOKUP_NO_NUMBERS, d->vendor_id);
    if (text) snprintf(f->vendor_name, sizeof f->vendor_name, "%s", text);
    text = pci_lookup_name(access, name, sizeof name, PCI_LOOKUP_DEVICE | PCI_LOOKUP_NO_NUMBERS, d->vendor_id, d->device_id);
    if (text) snprintf(f->device_name, sizeof f->device_name, "%s", text);
    text = pci_lookup_name(access, name, sizeof name, PCI_LOOKUP_CLASS | PCI_LOOKUP_NO_NUMBERS, d->device_class);
    if (text) snprintf(f->class_name, sizeof f->class_name, "%s", text);
    count = count + 1;
  }
  pci_cleanup(access);
  return count;
}

#include "martlet_gvisor.h"

#include <dlfcn.h>
#include <stddef.h>

const char *gvisor_load(const char *path, struct gvisor_functions *functions) {
  void *library = dlopen(path, RTLD_NOW);
  if (library == NULL) return dlerror();
  *(void **)&functions->start = dlsym(library, "martlet_gvisor_start");
  *(void **)&functions->receive = dlsym(library, "martlet_gvisor_receive");
  *(void **)&functions->send = dlsym(library, "martlet_gvisor_send");
  if (functions->start == NULL || functions->receive == NULL || functions->send == NULL)
    return "it is not what `make gvisor` builds";
  return NULL;
}

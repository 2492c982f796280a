// The header needs nothing before it.
#include "martlet_channel.h"

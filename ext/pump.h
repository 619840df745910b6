/* The pump: where stations meet in C.
 *
 *   receive.h   socket ─► codec ─► ring (client) | admit ─► inbox (server)
 *   record.h    inbox ─► ring ─► codec ─► journal's group ─► socket
 *   gather.h    journal's bytes ─► rows */
#ifndef FLUX_PUMP_H
#define FLUX_PUMP_H

#include "gather.h"
#include "push.h"
#include "receive.h"
#include "record.h"

#endif

/* The pump: where stations meet in C.
 *
 *   receive.h   socket ─► codec ─► ring (client) | admit ─► inbox (server)
 *   record.h    inbox ─► ring ─► codec ─► journal's group ─► socket
 *   refill.h    journal's bytes ─► rings */
#ifndef FLUX_PUMP_H
#define FLUX_PUMP_H

#include "push.h"
#include "receive.h"
#include "record.h"
#include "refill.h"

#endif

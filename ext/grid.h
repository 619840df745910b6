/* The grid: which bucket of an interval a time falls into.
 *
 *    open                         last   open of the next
 *      |---------------------------|      |
 *   ...[###########################][###########################]...      times in ms, both ends inclusive
 *
 *   length > 0   buckets of that many ms, one of them opening at `origin` (0 <= origin < length)
 *   edges        buckets between neighbours of an ascending list: days, weeks and months of a named zone, of 23 or 25
 *                hours where clocks change
 *   neither      months of UTC
 *
 * Every int64 has its bucket: one that would reach past the ends of int64 is cut there. */
#ifndef FLUX_GRID_H
#define FLUX_GRID_H

#include <stdint.h>

#define FLUX_DAY_MS INT64_C(86400000)

typedef struct {
    int64_t length;       /* ms, 0 = edges or months */
    int64_t origin;       /* ms */
    const int64_t *edges; /* ms, ascending */
    uint64_t edge_count;
} flux_grid;

typedef struct {
    int64_t open, last; /* ms, inclusive */
} flux_span;

static inline int64_t flux_floor_div(int64_t value, int64_t by) { return value / by - (value % by < 0); }

__extension__ typedef __int128 flux_wide; /* the ends of int64 in ms are not its ends in ns or in days */

static inline int64_t flux_cut(flux_wide value) {
    return value < INT64_MIN ? INT64_MIN : value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

/* Days since the epoch of the first of a month; months count from January of year 0 (Gregorian, before 1582 too). In
 * years that begin in March the leap day is the last day, and the days before a month are a straight line. */
static inline int64_t flux_month_day(int64_t month) {
    int64_t march = month - 2, year = flux_floor_div(march, 12), in_year = march - 12 * year;
    int64_t leaps = flux_floor_div(year, 4) - flux_floor_div(year, 100) + flux_floor_div(year, 400);
    return 365 * year + leaps + (153 * in_year + 2) / 5 - 719468;
}

static inline flux_span flux_grid_month(int64_t ts) {
    int64_t day = flux_floor_div(ts, FLUX_DAY_MS);
    /* 400 years have 4800 months in 146097 days: this is at most one month off. */
    int64_t month = flux_floor_div((day + 719528) * 4800, 146097);
    flux_span span;
    while (flux_month_day(month) > day) month--;
    while (flux_month_day(month + 1) <= day) month++;
    span.open = flux_cut((flux_wide)flux_month_day(month) * FLUX_DAY_MS);
    span.last = flux_cut((flux_wide)flux_month_day(month + 1) * FLUX_DAY_MS - 1);
    return span;
}

/* Between the last edge at or below ts and the one after it; outside the list there is one bucket on each side. */
static inline flux_span flux_grid_edge(const flux_grid *grid, int64_t ts) {
    uint64_t low = 0, high = grid->edge_count; /* edges below `low` are at or below ts, those from `high` on above */
    flux_span span;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (grid->edges[middle] <= ts)
            low = middle + 1;
        else
            high = middle;
    }
    span.open = low ? grid->edges[low - 1] : INT64_MIN;
    span.last = low < grid->edge_count ? grid->edges[low] - 1 : INT64_MAX;
    return span;
}

static inline flux_span flux_grid_find(const flux_grid *grid, int64_t ts) {
    int64_t into;
    flux_span span;
    if (grid->edge_count) return flux_grid_edge(grid, ts);
    if (grid->length == 0) return flux_grid_month(ts);
    into = ts % grid->length - grid->origin;
    if (into < 0) into += grid->length;
    if (into < 0) into += grid->length; /* ts % length is negative before the epoch */
    span.open = flux_cut((flux_wide)ts - into);
    span.last = flux_cut((flux_wide)ts + (grid->length - 1 - into));
    return span;
}

#endif

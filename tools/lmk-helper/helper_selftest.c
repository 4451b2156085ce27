/* SPDX-License-Identifier: Apache-2.0
 *
 * Golden bytes for the tests: every message with structure of its own, filled with fixed values by the very
 * functions that production uses, and the other direction for Settings.
 */
#include "helper.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static uint8_t bytes[4096];
static struct out frame = { .data = bytes, .size = sizeof(bytes) };

static void print(const char *name, size_t start)
{
	out_frame_end(&frame, start);
	printf("%s ", name);
	for (size_t i = 0; i < frame.used; i++)
		printf("%02x", bytes[i]);
	printf("\n");
	frame.used = 0;
}

static void print_packet(const char *name, const uint8_t *packet, size_t size)
{
	printf("%s ", name);
	for (size_t i = 0; i < size; i++)
		printf("%02x", packet[i]);
	printf("\n");
}

static void encode_hello(void)
{
	struct wire_hello hello = {
		.process_reap = CALL_PRESENT, .process_mrelease = CALL_ABSENT, .pidfd_open = CALL_BLOCKED,
		.capabilities = CAP_PSI | CAP_KMSG, .page_bytes = 4096, .ticks_per_s = 100, .cpus = 8, .uid = 2000,
		.pid = 4711, .guardian_pid = 4712, .worker_starts = 1, .mem_total_kib = 2048 * 1024,
		.now_ns = 123456789012345, .realtime_ns = 1700000000123456789, .sysname = "Linux",
		.release = "6.12.0", .kernel_version = "#1 SMP", .machine = "aarch64",
	};
	size_t start = out_frame_begin(&frame, MSG_HELLO, 7);

	out_hello(&frame, &hello);
	print("Hello", start);
}

static void encode_kills(void)
{
	struct wire_signalled signalled = { 3, 4242, 17, 987654321, 1000, 2000 };
	struct wire_exited exited = { 9, 4242, 17, 987654321, 3000 };
	struct wire_killed killed = {
		.pid = 4242, .handle = 17, .start_ticks = 987654321, .oom_score_adj = 900, .signal = 9,
		.method = REAP_PROCESS_REAP, .reap_error = 11, .reap_calls = 5, .flags = KILLED_REAP_TIMED_OUT,
		.received_ns = 1, .signal_ns = 2, .reap_begin_ns = 3, .reap_end_ns = 4, .exit_ns = 5, .back_ns = 6,
		.anon_kib_before = 7, .shmem_kib_before = 8, .swap_kib_before = 9, .rss_kib_before = 10,
		.anon_kib_after = -1, .shmem_kib_after = 11, .free_pages_before = 12, .free_pages_after_reap = 13,
		.free_pages_after_exit = 14, .back_allocatable_ns = 15,
		.group_members = 16, .group_lost = 17,
	};
	size_t start = out_frame_begin(&frame, MSG_SIGNALLED, 9);

	out_signalled(&frame, &signalled);
	print("Signalled", start);
	start = out_frame_begin(&frame, MSG_EXITED, 0);
	out_exited(&frame, &exited);
	print("Exited", start);
	start = out_frame_begin(&frame, MSG_KILLED, 9);
	out_killed(&frame, &killed);
	print("Killed", start);
}

static void encode_states(void)
{
	struct wire_failsafe failsafe = { .reason = WHY_SILENT, .mode = FAILSAFE_KILL, .silent_since_ns = 1,
					  .entered_ns = 2, .left_ns = 3, .packets_handled = 4, .packets_lost = 5,
					  .handed_back = 1, .handback_error = 6, .reregistered = 7,
					  .kills_lost = 8 };
	struct wire_failsafe_kill kill = { .signal_ns = 1, .pid = 2, .uid = 3, .oom_score_adj = 900, .error = 5,
					   .rss_kib = 6, .method = REAP_NONE, .reap_error = 7, .exit_ns = 8,
					   .name = "com.example" };
	struct wire_heartbeat beat = { 1, 2, 3, 4, 5, 6, 1 };
	size_t start = out_frame_begin(&frame, MSG_FAILSAFE, 0);

	out_failsafe(&frame, &failsafe, &kill, 1);
	print("Failsafe", start);
	start = out_frame_begin(&frame, MSG_HEARTBEAT, 0);
	out_heartbeat(&frame, &beat);
	print("Heartbeat", start);
	start = out_frame_begin(&frame, MSG_ERROR, 12);
	out_error(&frame, 22, REQ_KILL, "malformed");
	print("ErrorReply", start);
}

static void encode_control(void)
{
	struct wire_control control = { 3, CONTROL_CREDENTIALS | CONTROL_HANDLED, 100, 1000, 1001, 55, 20 };
	uint8_t packet[LMK_PACKET_MAX];
	struct lmk_procprio process = { 4242, 10123, 900, LMK_PROC_TYPE_SERVICE };
	size_t size = lmk_pack_procprio(packet, &process, 1), start, place;

	start = out_frame_begin(&frame, MSG_CONTROL, 0);
	out_control(&frame, &control);
	out_blob(&frame, packet, size);
	place = out_list_begin(&frame);
	out_list_end(&frame, place, 0);
	print("Control", start);
	start = out_frame_begin(&frame, MSG_CONTROL_CONNECTION, 0);
	out_control_connection(&frame, &control, CONTROL_HANGUP);
	print("ControlConnection", start);
}

static void encode_rows(void)
{
	struct wire_row row = { 4242, 17, 987654321, 10123, -5, 99, 100, 1, 2048 };
	size_t start, place;

	start = out_frame_begin(&frame, MSG_PROC_TABLE, 5);
	out_u8(&frame, 1);
	out_u32(&frame, 1);
	out_row(&frame, &row, "com.example:remote");
	print("ProcTable", start);
	start = out_frame_begin(&frame, MSG_PROC, 6);
	out_u32(&frame, 1);
	out_pid_entry(&frame, &row);
	place = out_list_begin(&frame);
	out_pid_text(&frame, FIELD_STATM, OP_NONE, 0, "1 2 3", 5);
	out_pid_text(&frame, FIELD_STATUS, OP_OPEN, 2, NULL, 0);
	out_list_end(&frame, place, 2);
	print("Proc", start);
	start = out_frame_begin(&frame, MSG_FILES, 8);
	out_u32(&frame, 1);
	out_file_text(&frame, FILE_VMSTAT, OP_NONE, 0, 77, "nr_free_pages 5\n", 16);
	print("Files", start);
}

static void encode_packets(void)
{
	static const int32_t TARGETS[][2] = { { 18432, 0 }, { 23040, 100 }, { 27648, 200 } };
	struct lmk_procprio processes[] = { { 4242, 10123, 900, 0 }, { 4243, 10124, -800, 1 } };
	uint8_t packet[LMK_PACKET_MAX];

	print_packet("lmkd.target", packet, lmk_pack_target(packet, TARGETS, LMK_ARRAY_LEN(TARGETS)));
	print_packet("lmkd.procprio", packet, lmk_pack_procprio(packet, &processes[0], 0));
	print_packet("lmkd.procprio_type", packet, lmk_pack_procprio(packet, &processes[1], 1));
	print_packet("lmkd.procs_prio", packet, lmk_pack_procs_prio(packet, processes, 2));
	print_packet("lmkd.procremove", packet, lmk_pack_procremove(packet, 4242));
	print_packet("lmkd.procpurge", packet, lmk_pack_procpurge(packet));
	print_packet("lmkd.getkillcnt", packet, lmk_pack_getkillcnt(packet, -1000, 1000));
	print_packet("lmkd.subscribe", packet, lmk_pack_subscribe(packet, 1));
}

int selftest_encode(void)
{
	encode_hello();
	encode_kills();
	encode_states();
	encode_control();
	encode_rows();
	encode_packets();
	return 0;
}

/* Reads one Settings payload (raw bytes) from stdin and prints its fields. */
int selftest_decode(void)
{
	struct settings s;
	struct in in = { .at = bytes, .left = fread(bytes, 1, sizeof(bytes), stdin) };

	in_settings(&in, &s);
	if (in.bad) {
		puts("bad");
		return 1;
	}
	printf("%" PRIu32 " %u %" PRId32 " %" PRIu32 " [%s] %" PRIu32 " %" PRId32 " %" PRId32 " %" PRIu64 " %" PRIu64
	       " %" PRIu32 " %u %u %" PRIu32 " %" PRIu32 " [%s]\n",
	       s.failsafe_ms, s.failsafe_mode, s.failsafe_min_adj, s.failsafe_interval_ms, s.failsafe_trigger,
	       s.heartbeat_ms, s.main_priority, s.reaper_priority, s.main_cpus, s.reaper_cpus, s.sample_files,
	       s.candidates, s.candidate_fields, s.flags, s.reap_timeout_ms, s.vmstat_names);
	return 0;
}

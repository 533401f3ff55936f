CREATE TABLE `accounts` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`balance_nano` integer DEFAULT 0 NOT NULL,
	`created_at` integer NOT NULL,
	CONSTRAINT "accounts_balance_not_negative" CHECK("accounts"."balance_nano" >= 0)
);
--> statement-breakpoint
CREATE UNIQUE INDEX `accounts_name_unique` ON `accounts` (`name`);--> statement-breakpoint
CREATE TABLE `api_keys` (
	`id` text PRIMARY KEY NOT NULL,
	`account_id` text NOT NULL,
	`name` text NOT NULL,
	`key_hash` text NOT NULL,
	`last_four` text NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer,
	`revoked_at` integer,
	FOREIGN KEY (`account_id`) REFERENCES `accounts`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `api_keys_key_hash_unique` ON `api_keys` (`key_hash`);--> statement-breakpoint
CREATE INDEX `api_keys_account` ON `api_keys` (`account_id`);--> statement-breakpoint
CREATE TABLE `ledger` (
	`account_id` text NOT NULL,
	`id` text NOT NULL,
	`kind` text NOT NULL,
	`amount_nano` integer NOT NULL,
	`seq` integer NOT NULL,
	`balance_after_nano` integer NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`account_id`, `id`)
);
--> statement-breakpoint
CREATE INDEX `ledger_account_seq` ON `ledger` (`account_id`,`seq`);--> statement-breakpoint
CREATE TABLE `nodes` (
	`id` text PRIMARY KEY NOT NULL,
	`address` text NOT NULL,
	`public_key` text NOT NULL,
	`model` text NOT NULL,
	`chat_format` text NOT NULL,
	`context_tokens` integer NOT NULL,
	`draining` integer DEFAULT false NOT NULL,
	`running` integer DEFAULT 0 NOT NULL,
	`waiting` integer DEFAULT 0 NOT NULL,
	`prefill_tokens_per_second` integer DEFAULT 0 NOT NULL,
	`registered_at` integer NOT NULL,
	`heartbeat_at` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `prefix_blocks` (
	`key` text NOT NULL,
	`node_id` text NOT NULL,
	`tokens` integer NOT NULL,
	`seen_at` integer NOT NULL,
	PRIMARY KEY(`key`, `node_id`)
);
--> statement-breakpoint
CREATE INDEX `prefix_blocks_seen` ON `prefix_blocks` (`seen_at`);--> statement-breakpoint
CREATE TABLE `prices` (
	`model` text NOT NULL,
	`effective_from` integer NOT NULL,
	`hit_nano` integer NOT NULL,
	`miss_nano` integer NOT NULL,
	`output_nano` integer NOT NULL,
	PRIMARY KEY(`model`, `effective_from`)
);
--> statement-breakpoint
CREATE TABLE `usage` (
	`request_id` text PRIMARY KEY NOT NULL,
	`account_id` text NOT NULL,
	`key_id` text NOT NULL,
	`node_id` text NOT NULL,
	`epoch` text NOT NULL,
	`seq` integer NOT NULL,
	`attempt` integer NOT NULL,
	`model` text NOT NULL,
	`hit_tokens` integer NOT NULL,
	`miss_tokens` integer NOT NULL,
	`output_tokens` integer NOT NULL,
	`reasoning_tokens` integer NOT NULL,
	`hit_nano` integer NOT NULL,
	`miss_nano` integer NOT NULL,
	`output_nano` integer NOT NULL,
	`charged_nano` integer NOT NULL,
	`finish` text NOT NULL,
	`opened_at` integer NOT NULL,
	`first_token_at` integer,
	`closed_at` integer NOT NULL,
	`settled_at` integer NOT NULL,
	`signature` text NOT NULL
);
--> statement-breakpoint
CREATE INDEX `usage_account_time` ON `usage` (`account_id`,`settled_at`);--> statement-breakpoint
CREATE INDEX `usage_key_time` ON `usage` (`key_id`,`settled_at`);
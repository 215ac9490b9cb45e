//! Makes the types of the client protocol in Protobuf from `proto/client.proto`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/client.proto");
    #[cfg(feature = "server")]
    {
        let schema = protox::compile(["client.proto"], ["proto"])?;
        // Payloads are cut out of the frame they came in; maps are written in one order.
        prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(schema)?;
    }
    Ok(())
}
